"""The main job: train zero, one and two layers on real text, and take each apart exactly."""

import os
import time
from itertools import count

import numpy as np

from minicircuits import files
from minicircuits.circuits.hand_built import START, induction_by_k_composition
from minicircuits.model.transformer import forward, init_weights, loss
from minicircuits.findings import figures
from minicircuits.terminal import layout
from minicircuits.terminal import sections as terminal
from minicircuits.terminal.progress import LOG_HEADING
from minicircuits.report.content import content
from minicircuits.report.page import report_html
from minicircuits.runs import resume, train_to_file
from minicircuits.training.bigrams import fit_zero_layer, unigram, zero_layer_loss
from minicircuits.training.model_file import load_model
from minicircuits.training.pretrained import load_pretrained
from minicircuits.training.recipe import SHAPE
from minicircuits.training.text import load_sample, load_text

NAMES = ("zero_layers", "one_layer", "two_layers")
EXACT = 1e-12         # relative, in float64
SENTENCE = "the small cat saw the old dog and the small"


def tour(options):
    """`minicircuits tour`."""
    folder = output_folder(options)
    outputs = [os.path.join(folder, f"{name}.npz") for name in NAMES]
    page = os.path.join(folder, "report.html")
    files.check_folder(folder, [f"{name}.npz" for name in NAMES] + ["report.html"], options.force)
    check_json(options)
    results = {"algebra": before_training()}
    text = read(options)
    files.make_folder(folder)
    for n_layers, output in enumerate(outputs):
        title = f"{NAMES[n_layers].replace('_', ' ').upper()}, from scratch"
        print(layout.heading(title), LOG_HEADING, sep="\n")
        model = train_to_file(n_layers, text, options.seed, output, options.steps, options.force)
        results[NAMES[n_layers]] = take_apart(model, text, options.seed)
    write_json(options, results)
    write_page(page, model, text, results[NAMES[-1]], options)
    print(layout.heading("Where things are"))
    print(f"  weights, tokenizers and training logs: {folder}/")
    print(f"  the two-layer model, to click through in a browser: {page}")
    print("  to look at the heads again:",
          f"    minicircuits heads {outputs[-1]}",
          "  to train on a text of your own:",
          "    minicircuits tour --text FILE_OR_FOLDER", sep="\n")
    return status(*results.values())


def train(options):
    """`minicircuits train`."""
    if not options.resume:
        files.check_output(f"{options.output}.checkpoint", options.force)
    files.check_output(options.output, options.force)
    check_json(options)
    text = read(options)
    print(LOG_HEADING)
    if options.resume:
        model = resume(text, options.output, options.force)
    else:
        model = train_to_file(options.layers, text, options.seed, options.output, options.steps,
                              options.force)
    print(f"  written: {options.output}")
    write_json(options, model.metadata)


def heads(options):
    """`minicircuits heads`."""
    check_json(options)
    model, text = model_and_text(options)
    results = take_apart(model, text, options.seed)
    write_json(options, results)
    return status(results)


def report(options):
    """`minicircuits report`."""
    files.check_output(options.output, options.force)
    check_json(options)
    model, text = model_and_text(options)
    results = take_apart(model, text, options.seed)
    write_json(options, results)
    write_page(options.output, model, text, results, options)
    print(f"\n  written: {options.output}")
    return status(results)


def write_page(output, model, text, results, options):
    """The page of one model, from the figures that the terminal has just shown."""
    files.write_bytes(output, report_html(content(model, text, results, options.seed)),
                      options.force)


def status(*results):
    """The exit status: 1 if some sum over paths was not what the forward pass gave."""
    errors = [found.get("exactness", found)[name] for found in results
              for name in ("logits", "scores", "patterns", "rebuilt_logits")]
    if all(error <= EXACT for error in errors):
        return 0
    print(f"  NOT EXACT: a relative difference of {max(errors):.1e} is more than {EXACT}")
    return 1


def check_json(options):
    if options.json:
        files.check_output(options.json, options.force)


def write_json(options, results):
    if options.json:
        files.write_json(options.json, results, options.force)


def output_folder(options):
    """The folder asked for, or the first of tour-1, tour-2, … that does not exist."""
    if options.output:
        return options.output
    return next(name for name in map("tour-{}".format, count(1)) if not os.path.exists(name))


def model_and_text(options):
    """The model and the text asked for; without either, those that come with this package."""
    model = load_model(options.model) if options.model else load_pretrained()
    if options.model or options.text:
        return model, read(options, model)
    text = load_sample(model)
    print(f"\nThe model that comes with this package, on {len(text.stream):,} tokens of a text "
          "that it\nhas not seen.")
    return model, text


def read(options, model=None):
    """The text asked for, in the tokens and the context of `model` if there is one."""
    began = time.perf_counter()
    text = load_text(options.text) if model is None else load_text(
        options.text, model.tokenizer, model.weights.n_ctx or SHAPE["n_ctx"])
    print(f"\nText: {text.size / 1e6:.1f} MB, {len(text.stream):,} tokens of "
          f"{text.tokenizer.d_vocab} for training, read and tokenized in "
          f"{time.perf_counter() - began:.0f} s.")
    return text


def before_training():
    """The claim on random weights, and induction by hand on one sentence."""
    print(layout.heading("The claim: a transformer without MLPs is a sum over paths"))
    weights = init_weights(n_layers=2, n_heads=4, d_model=32, d_head=8, d_vocab=50, n_ctx=16,
                           positions="shortformer", rng=np.random.default_rng(0))
    errors = figures.exactness(weights, np.random.default_rng(1).integers(50, size=(2, 16)))
    print(*terminal.exactness(errors), sep="\n")
    print(layout.heading("Induction, built by hand: [a][b] … [a] → [b]"))
    words = ["<START>", *dict.fromkeys(SENTENCE.split())]
    tokens = np.array([[START, *map(words.index, SENTENCE.split())]])
    acts = forward(induction_by_k_composition(len(words), tokens.shape[1]), tokens)
    print(f"  {SENTENCE} …", "",
          "  Head 0.0 tells each word which one came before it. Head 1.0 looks for words",
          "  that came after an earlier copy of the present word, and says what it finds:",
          sep="\n")
    for i, row in enumerate(acts.pattern[1, 0, 0]):
        if row[START] < 1:
            found = ", ".join(f"{words[tokens[0, j]]} ({row[j]:.2f})" for j in row.nonzero()[0])
            said = " or ".join(words[v] for v in acts.logits[0, i].nonzero()[0])
            print(f"    word {i:>2}, {words[tokens[0, i]]:<6}looks at {found:<26}→ {said}")
    print("  At all other words it rests on <START> and says nothing.")
    return errors


def take_apart(model, text, seed):
    """Print what the algebra finds in a trained model; returns the figures."""
    weights, show = model.weights.astype(np.float64), model.tokenizer.show
    start, contexts = model.tokenizer.start, text.validation
    results = {"losses": {**text.baselines, f"this model, {layers(weights)}":
                          float(loss(weights, contexts))},
               "exactness": figures.exactness(weights, contexts[:1])}
    show_section("Held-out loss", terminal.losses(results["losses"]))
    show_section("Is the algebra exact on it?", terminal.exactness(results["exactness"]))
    if weights.n_layers == 0:
        return results | zero_layers(weights, text, show, seed)
    probabilities = unigram(text.counts)[:, 0]
    rows = figures.head_table(weights, start, probabilities, contexts[:16], seed)
    results["heads"] = rows
    show_section("What each head looks at, and copies", terminal.heads(rows))
    if weights.n_layers == 1:
        show_section("Skip-trigrams: source … destinations → outs it raises",
                     terminal.skip_trigrams(rows, show))
        return results
    return results | two_layers(weights, rows, contexts, start, show, seed)


def layers(weights):
    return f"{weights.n_layers} layer{'' if weights.n_layers == 1 else 's'}"


def show_section(title, lines):
    print(layout.heading(title))
    print(*lines, sep="\n")


def zero_layers(weights, text, show, seed):
    """The bigram table, beside the text's own and beside the best one of this rank."""
    words = [token for token in np.argsort(-text.counts.sum(0), kind="stable").tolist()
             if sum(map(str.isalpha, show(token))) >= 3 and token != text.tokenizer.start][:8]
    rows = figures.next_tokens(weights, text.counts, words)
    reached = float(zero_layer_loss(weights.W_U, weights.W_E, text.counts)[0])
    best = fit_zero_layer(text.counts, weights.d_model, np.random.default_rng(seed))
    show_section("Its bigram table W_U W_E, and the text's", terminal.next_tokens(rows, show))
    print(f"\n  on the training text {reached:.3f} nats; the same model fitted to the bigram "
          f"counts\n  by L-BFGS {best:.3f}: the trainer is {reached - best:.3f} above it")
    return {"next_tokens": rows, "training_loss": reached, "fitted_loss": best}


def two_layers(weights, rows, contexts, start, show, seed):
    """Composition, induction and term importance, and one prediction as a ledger."""
    induction, previous = figures.best_heads(rows)
    names = terminal.name(induction), terminal.name(previous)
    induction, previous = ((row["layer"], row["head"]) for row in (induction, previous))
    results = {"induction_head": induction, "previous_token_head": previous,
               "composition": figures.composition(weights),
               "importance": figures.importance(weights, contexts[:16]),
               "split": figures.induction_split(weights, start, *induction, seed),
               "gaps": figures.removals(weights, start, induction, previous, seed),
               "removed": figures.removal_losses(weights, contexts[:16], [induction, previous]),
               "prediction": figures.prediction(weights, contexts[:16], induction)}
    show_section("Who reads whom: composition scores",
                 terminal.composition(results["composition"]))
    show_section("How much each order of terms matters (patterns frozen)",
                 terminal.importance(results["importance"]))
    print(*terminal.virtual_heads(results["importance"]), sep="\n")
    show_section(f"Scores of head {names[0]} on repeated random tokens, in four parts",
                 terminal.split(results["split"]))
    show_section("What removing heads does", terminal.removals(results, *names))
    show_section(f"One prediction that head {names[0]} helped, as a ledger of paths",
                 terminal.ledger(results["prediction"], show))
    return results
