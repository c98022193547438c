"""`minicircuits tour`: train zero, one and two layers on text, and take each apart exactly."""

import os
from dataclasses import replace
from itertools import count

import numpy as np

from minicircuits import files
from minicircuits.circuits.hand_built import START, induction_by_k_composition
from minicircuits.commands.model import (check_different, check_outputs, exact_status,
                                         print_findings, read_text, recipe, resumable, shape,
                                         what_next, write_json, write_page)
from minicircuits.findings.effects import exactness
from minicircuits.findings.study import Study
from minicircuits.model.transformer import forward, init_weights
from minicircuits.runs import train_to_file
from minicircuits.terminal.layout import heading
from minicircuits.terminal.progress import LOG_HEADING
from minicircuits.terminal.sections import exactness_lines

NAMES = ("zero_layers", "one_layer", "two_layers")
STEPS = (250, 300, 500)        # as many as each needs: counts, skip-trigrams, induction
SENTENCE = "the small cat saw the old dog and the small"


def tour(options):
    folder = options.output or next(
        name for name in map("tour-{}".format, count(1)) if not os.path.exists(name))
    outputs = [os.path.join(folder, f"{name}.npz") for name in NAMES]
    page = os.path.join(folder, "report.html")
    checkpoints = [f"{output}.checkpoint" for output in outputs]
    files.check_folder(folder, map(os.path.basename, (*outputs, *checkpoints, page)),
                       options.force)
    check_different(*outputs, *checkpoints, page, options.json)
    check_outputs(options)
    results = {"algebra": the_claim()}
    induction_by_hand()
    text = read_text(options)
    numbers = recipe(options, text)
    files.make_folder(folder)
    for n_layers, (name, output, steps) in enumerate(zip(NAMES, outputs, STEPS)):
        needed = numbers if options.steps else replace(numbers, steps=steps)
        print(heading(f"{name.replace('_', ' ').upper()}, from scratch"), LOG_HEADING, sep="\n")
        with resumable(options, output):
            model = train_to_file(n_layers, text, output, needed, shape(options), options.force)
        study = Study(model, text.contexts(), options.seed)
        results[name] = print_findings(study)
    write_json(options, results)
    write_page(options, page, study, results[name])
    print(heading("Where things are"),
          f"  weights, tokenizers and training logs: {folder}/",
          f"  the two-layer model, to click through in a browser: {page}",
          *what_next(options, output), "  to train on a text of your own:",
          "    minicircuits tour --text FILE_OR_FOLDER", sep="\n")
    return exact_status(results["algebra"], *(results[name]["exactness"] for name in NAMES))


def the_claim():
    """Prints how exact the algebra is on random weights; returns the errors."""
    weights = init_weights(n_layers=2, n_heads=4, d_model=32, d_head=8, d_vocab=50, n_ctx=16,
                           positions="shortformer", rng=np.random.default_rng(0))
    tokens = np.random.default_rng(1).integers(50, size=(2, 16))
    errors = exactness(weights, tokens, forward(weights, tokens))
    print(heading("The claim: a transformer without MLPs is a sum over paths"),
          *exactness_lines(errors), sep="\n")
    return errors


def induction_by_hand():
    """Prints what an induction head built by hand does on one sentence."""
    words = ["<START>", *dict.fromkeys(SENTENCE.split())]
    tokens = np.array([[START, *map(words.index, SENTENCE.split())]])
    acts = forward(induction_by_k_composition(len(words), tokens.shape[1]), tokens)
    print(heading("Induction, built by hand: [a][b] … [a] → [b]"), f"  {SENTENCE} …", "",
          "  Head 0.0 tells each word which one came before it. Head 1.0 looks for words",
          "  that came after an earlier copy of the present word, and says what it finds:",
          sep="\n")
    for i, row in enumerate(acts.pattern[1, 0, 0]):
        if row[START] < 1:
            found = ", ".join(f"{words[tokens[0, j]]} ({row[j]:.2f})" for j in row.nonzero()[0])
            said = " or ".join(words[v] for v in acts.logits[0, i].nonzero()[0])
            print(f"    word {i:>2}, {words[tokens[0, i]]:<6}looks at {found:<26}→ {said}")
    print("  At all other words it attends to <START>, and adds nothing.")
