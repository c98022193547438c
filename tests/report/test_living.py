"""What the page computes is what NumPy computes: tokens, activations, circuits, heads off.

The scripts run in Node, where it is there; and in the extras in the browser, which has a page.
"""

import json
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.findings.heads import heads_of
from minicircuits.report.data import running_model
from minicircuits.report.page import FOLDER
from minicircuits.testing import check
from minicircuits.testing.vectors import core
from minicircuits.training.tokenizer import Tokenizer, train_tokenizer
from tests.report.reported import text
from tests.with_norms import random_model

SCRIPTS = ("numbers.js", "data.js", "state.js", "texts.js", "model.js", "circuits.js",
           "tokenizer.js", "living.js", "sentence.js")
# A run in arrays that JSON has: [layer or head][position][dimension], triangles filled up.
RUN = """({tokens, off, frozen}) => {
  const living = livingModel(page.model, page.shown_heads);
  select({run: {off: off.map(headName), frozen}});
  const text = living.text("", tokens), {W} = living, hs = [...W.W_O.keys()];
  const whole = forward(W, tokens);
  const acts = off.length
    ? forward(W, tokens, new Set(off.map(([layer, head]) => layer * W.n_heads + head)),
              frozen ? whole : null) : whole;
  const plain = rows => Array.from(rows, row => row.length === undefined ? row : plain(row));
  const square = values => tokens.map((_, i) => tokens.map((_, j) =>
    j <= i ? values[triangle(i, j)] ?? 0 : 0));
  const place = tokens.length - 1;
  return {
    ...Object.fromEntries(["residual", "q", "k", "v", "z", "logits"].map(name =>
      [name, plain(acts[name])])),
    norms: acts.norms && plain(acts.norms), scores: acts.scores.map(square),
    pattern: acts.pattern.map(square), loss: text.loss(), wholeLoss: text.wholeLoss(),
    lengths: hs.map(h => plain(valueLengths(W, acts, h))),
    effects: hs.map(h => square(sourceEffects(W, acts, h))),
    parts: hs.map(h => scoreParts(W, acts, h).map(square)),
    looked: page.shown_heads.slice(-1).map(text.scores).map(square),
    shown: text.views.pattern().length, next: text.next(place),
    paths: text.paths(place, 1).map(({heads, sources, total}) => [heads, plain(sources), total]),
    logit: text.logit(place, 1)};
}"""


def program(function):
    """The body of a function of two JSON texts, of a page and of what `function` is given."""
    scripts = "".join((FOLDER / name).read_text() for name in SCRIPTS)
    return ("'use strict';\n"
            f"const document = {{getElementById: () => ({{textContent: page_}})}};\n{scripts}\n"
            f"return ({function})(JSON.parse(given_));")


def in_node(page, function, given):
    source = ("const [page_, given_] = JSON.parse(require('fs').readFileSync(0)); console.log("
              f"JSON.stringify((() => {{ {program(function)} }})()));")
    return json.loads(subprocess.run(["node", "-e", source], capture_output=True, text=True,
                                     check=True, input=json.dumps(
                                         [json.dumps(page), json.dumps(given)])).stdout)


@pytest.fixture(scope="module", params=[
    "node", pytest.param("chromium", marks=pytest.mark.extra)])
def run(request):
    """run(page, function, given): what a function of the scripts makes of what it is given."""
    if request.param == "node":
        if not shutil.which("node"):
            pytest.skip("there is no Node here; the browser runs the same")
        yield in_node
        return
    blank = request.getfixturevalue("browser").new_page()
    yield lambda page, function, given: blank.evaluate(
        "([source, page, given]) => new Function('page_', 'given_', source)(page, given)",
        [program(function), json.dumps(page), json.dumps(given)])
    blank.close()


def in_page(weights):
    """As much of a page as the scripts need."""
    return {**running_model(weights, None), "vocabulary": [],
            "shown_heads": heads_of(weights)}


# Terms of a score, by the names that Python gives them, as it is and less its row's mean.
TERMS = """({tokens, off, pairs, target, against}) => {
  const living = livingModel(page.model, page.shown_heads), text = living.text("", tokens);
  select({run: {off: off.map(headName), frozen: false}});
  const place = tokens.length - 1;
  return {
    terms: pairs.map(([head, i, j]) => [false, true].map(level =>
      text.terms(head, i, j, level).map(({query, key, value, shares}) => [[query, key].map(
        ({source, heads}) => [source, ...heads.map(headName)].join("→")).join(" · "), value,
        shares().map(side => [...side])]))),
    counts: pairs.map(([head]) => text.countTerms(head)),
    ledgers: against.map(one => [text.logit(place, target, one),
      text.paths(place, target, one).map(({total}) => total)])};
}"""


def random_weights(positions, n_layers=2):
    return mc.init_weights(n_layers, 3, 12, 5, 9, 20, positions, np.random.default_rng(3))


MODELS = {
    "shortformer": lambda: random_weights("shortformer"),
    "standard": lambda: random_weights("standard", 3),
    "none": lambda: random_weights("none", 1),
    "no layers": lambda: random_weights("standard", 0),
    "biases": lambda: mc.fold_biases(random_weights("shortformer"), b_Q=np.ones((2, 3, 5)),
                                     b_O=np.ones((2, 12)), b_U=np.arange(9.0)),
    "LN": lambda: random_model(1, "LN", "shortformer", d_vocab=9, n_ctx=20)[0].folded(),
    "RMS": lambda: random_model(2, "RMS", "standard", 3, d_vocab=9, n_ctx=20)[0].folded(),
    "LNPre": lambda: random_model(3, "LNPre", "none", 1, False, d_vocab=9, n_ctx=20)[0].folded(),
    "packaged": lambda: mc.load_pretrained().weights}


def rounded(weights):
    """As the page has it: float32, with which all is computed in float64."""
    return replace(weights, **{name: W.astype(np.float32).astype(np.float64)
                               for name, W in weights.items()})


def close(found, desired):
    """Within 1e-5 of the largest entry, as the page's float32 need not be; in fact about 1e-12."""
    found, desired = np.array(found, float), np.asarray(desired)
    assert found.reshape(desired.shape) == pytest.approx(
        desired, abs=1e-9 * max(1, np.abs(desired).max(initial=0)))


@pytest.mark.parametrize("name", MODELS)
def test_the_page_computes_what_numpy_does(run, name):
    weights, rng = rounded(MODELS[name]()), np.random.default_rng(0)
    for n in (1, 2, 17):
        tokens = rng.integers(0, weights.d_vocab, (1, n))
        acts = mc.forward(weights, tokens)
        found = run(in_page(weights), RUN, {"tokens": tokens[0].tolist(), "off": [],
                                            "frozen": False})
        for key in ("residual", "q", "k", "v", "z", "logits", "pattern"):
            close(found[key], getattr(acts, key)[:, 0] if key != "logits" else acts.logits[0])
        close(found["scores"], np.tril(acts.scores[:, 0]))
        if acts.norms is not None:
            close(found["norms"], acts.norms[:, 0])
        assert found["shown"] == len(heads_of(weights))
        close(found["logit"], acts.logits[0, -1, 1])
        close(sum(total for *_, total in found["paths"]), acts.logits[0, -1, 1])
        likeliest = np.exp(acts.logits[0, -1] - np.logaddexp.reduce(acts.logits[0, -1]))
        close([share for _, share in found["next"]], np.sort(likeliest)[::-1][:8])
        if n > 1:
            close(found["loss"], mc.loss(weights, tokens))
        if weights.n_layers:
            close(found["lengths"], np.linalg.norm(
                acts.v[:, 0] @ weights.W_O.mT, axis=-1))
        ledger = mc.ledger(weights, tokens, acts.pattern, n - 1, 1, acts.norms)
        totals = {str([list(head) for head in path]): row
                  for path, row in zip(ledger.paths, ledger.contributions)}
        assert len(found["paths"]) == len(totals)
        for heads, sources, total in found["paths"]:
            close(total, totals[str(heads)].sum())
            if any(sources):
                close(sources, totals[str(heads)])
        for h, (layer, head) in enumerate(np.ndindex(weights.n_layers, weights.n_heads)):
            effects = mc.source_effects(weights, tokens, layer, head, acts)[0]
            close(np.array(found["effects"][h])[:n - 1], effects)
            split = mc.split_scores(weights, tokens, acts.pattern, layer, head, acts.norms)
            close(found["parts"][h], [np.tril(part[0]) for part in split])


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("name", ["shortformer", "biases", "LN", "packaged"])
def test_heads_switched_off(run, name, frozen):
    weights, off = rounded(MODELS[name]()), [(0, 1), (1, 0)]
    tokens = np.random.default_rng(1).integers(0, weights.d_vocab, (1, 16))
    found = run(in_page(weights), RUN, {"tokens": tokens[0].tolist(), "off": off,
                                        "frozen": frozen})
    losses = mc.loss_without_heads(weights, tokens, off)
    close(found["loss"], losses.frozen if frozen else losses.recomputed)
    close(found["wholeLoss"], mc.loss(weights, tokens))
    acts = mc.forward(mc.without_heads(weights, off), tokens)
    whole = mc.forward(weights, tokens)
    layer, head = heads_of(weights)[-1]
    close(found["looked"], np.tril((whole if frozen else acts).scores[layer, :, head]))
    if frozen:
        close(found["pattern"], whole.pattern[:, 0])
    else:
        close(found["logits"], acts.logits[0])
        assert {row[1] for row in found["next"]} != {row[2] for row in found["next"]}
    close(sum(total for *_, total in found["paths"]), np.array(found["logits"])[-1][1])
    assert len(found["paths"]) == weights.n_heads ** 2                     # (1 + heads − 1)^2
    assert not any(np.any(found[key][1]) for key in ("lengths", "effects"))


@pytest.mark.parametrize("off", [[], [(0, 1)]])
@pytest.mark.parametrize("name", MODELS)
def test_terms_of_a_score(run, name, off):
    weights, rng = rounded(MODELS[name]()), np.random.default_rng(4)
    off = [head for head in off if head in heads_of(weights)]
    tokens = rng.integers(0, weights.d_vocab, (1, 9))
    fewer = mc.without_heads(weights, off)
    acts = mc.forward(fewer, tokens)
    pairs = [(head, i, j) for head in heads_of(weights) for i, j in ((8, 3), (0, 0))]
    shown = run(in_page(weights), TERMS, {"tokens": tokens[0].tolist(), "off": off,
                                          "pairs": pairs, "target": 1, "against": []})
    names = {f"{layer}.{head}" for layer, head in off}
    for (head, i, j), both, count in zip(pairs, shown["terms"], shown["counts"], strict=True):
        found = {term.label: term for term in mc.expand_scores(
            fewer, tokens, acts.pattern, *head, acts.norms)
            if not names & {*term.label.replace("→", " ").split()}}
        terms = {label: term.scores[0, i, :i + 1] for label, term in found.items()}
        for level, rows in zip((0, 1), both):
            values = [value for _, value, _ in rows]
            assert len(rows) == len(terms) == count
            assert values == sorted(values, key=abs, reverse=True)
            close(values, [terms[label][j] - level * terms[label].mean() for label, *_ in rows])
            close(np.sum([shares for *_, shares in rows], -1), np.array([values, values]).T)
            if acts.norms is None and not level:                # where the key side reads it
                label, _, (_, shares) = rows[0]
                query, key = found[label].query.q_or_k[0, i], found[label].key
                read = key.W.B[:, range(9) if key.source == "position" else tokens[0]]
                close(shares, key.A[0, j] * (query @ key.W.A @ read) / weights.d_head ** 0.5)
            row = acts.scores[head[0], 0, head[1], i, :i + 1]
            close(sum(values), row[j] - level * row.mean())


@pytest.mark.parametrize("name", MODELS)
def test_a_logit_against_others(run, name):
    """Paths to one logit less another, and less the mean of all."""
    weights, rng = rounded(MODELS[name]()), np.random.default_rng(5)
    tokens, target = rng.integers(0, weights.d_vocab, (1, 9)), 2
    acts = mc.forward(weights, tokens)
    found = run(in_page(weights), TERMS, {"tokens": tokens[0].tolist(), "off": [], "pairs": [],
                                          "target": target, "against": ["mean", 5, None]})
    logits = acts.logits[0, -1]
    others = (logits.mean(), logits[5], 0)
    for other, row, (logit, totals) in zip(others, (weights.W_U.mean(0), weights.W_U[5], 0),
                                           found["ledgers"], strict=True):
        less = replace(weights, W_U=weights.W_U - row)
        entries = mc.ledger(less, tokens, acts.pattern, 8, target, acts.norms)
        close(logit, logits[target] - other)
        close(sum(totals), logit)
        close(sorted(totals), np.sort(entries.contributions.sum(1)))


CASES = """cases => cases.map(({model, tokens}) => tokens.map(row => {
  const W = weightsOf(model), acts = forward(W, row);
  const plain = rows => Array.from(rows, row => row.length === undefined ? row : plain(row));
  const square = values => row.map((_, i) => row.map((_, j) =>
    j <= i ? values[triangle(i, j)] : 0));
  return {...Object.fromEntries(["residual", "q", "k", "v", "z", "logits"].map(name =>
    [name, plain(acts[name])])), pattern: acts.pattern.map(square)}; }))"""


def test_it_passes_the_oracle(run):
    """Every golden vector, as `minicircuits check` holds any program to it."""
    vectors = [vector for vector in core().values() if vector.tokens.shape[1] <= 64]
    found = run({"vocabulary": [], "shown_heads": []}, CASES, [
        {**in_page(vector.weights), "tokens": vector.tokens.tolist()} for vector in vectors])
    assert len(vectors) > 15
    for vector, contexts in zip(vectors, found, strict=True):
        W, tensors = vector.weights, {}
        for name in contexts[0] if W.n_layers else ("residual", "logits"):
            array = np.array([context[name] for context in contexts])
            if name not in ("logits", "residual"):              # (b, l·h, …) -> (l, b, h, …)
                array = array.reshape(len(array), W.n_layers, W.n_heads, *array.shape[2:])
            tensors[name] = array if name == "logits" else array.swapaxes(0, 1)
        assert (report := check(vector, tensors, "float32")), report


# The tokenizer.

SPACES = " \t\n\r\x0b\x0c\x1c\x85\xa0\u2028\ufeff\u3000"
HOSTILE = (b"", b"\xff\xfe\x00", b"a\x80b\xe2\x82", b"\xed\xa0\x80\xf4\x90\x80\x80 \xc0\xaf",
           SPACES,
           "the __init__ of snake_case, _x _ ____ 12345 don't\n\n\t\tif not x:\r\n  \r\n end  ",
           "漢字かな交じり文、中文文本。你好，世界！ 你好", "naïve café Ünïcödé é e\u0301 word\u00e9s",
           "🎲👩‍👩‍👧 \ud800 x\udfff", "\ufeffx", "a" * 100,
           "_" * 40 + "é" * 70, " " * 80 + "x" + "\n" * 40,
           "".join(map(chr, range(0x250))), bytes(range(256)) * 2, "\\ud800 <script>&amp;</script>")
ENCODE = ("bytes => { const {encodeBytes} = tokenizerOf(page.merges); "
          "return bytes.map(encodeBytes); }")
TOKENIZERS = {
    "packaged": lambda: mc.load_pretrained().tokenizer, "small": lambda: text().tokenizer,
    "bytes": lambda: train_tokenizer("", 257),
    "Chinese": lambda: train_tokenizer("中文文本。你好，世界！ 漢字かな naïve café " * 9, 330),
    "strange": lambda: Tokenizer.from_merges(                   # a pair twice, stray bytes joined
        [[97, 98], [97, 98], [256, 97], [0x80, 0x80], [0xc3, 0xa9], [260, 260], [32, 32],
         [262, 10]])}


def as_bytes(data):
    return data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_the_tokenizer_gives_the_same_ids(run, name):
    tokenizer = TOKENIZERS[name]()
    page = {"merges": tokenizer.to_array().tolist(), "vocabulary": [], "shown_heads": []}
    rng = np.random.default_rng(0)
    texts = [*map(as_bytes, HOSTILE), *(rng.integers(0, 256, 300).astype(np.uint8).tobytes()
                                        for _ in range(20)),
             *(bytes(rng.choice([*b" \t\n\r\x0b__09aZ.,\xc3\xa9\x80\xe4\xb8\xad"], 400))
               for _ in range(40)), (FOLDER / "data.py").read_bytes()]
    found = run(page, ENCODE, [data.decode("latin-1") for data in texts])
    for data, ids in zip(texts, found, strict=True):
        assert ids == tokenizer.encode(data).tolist(), data[:80]


def test_text_is_utf8_as_python_has_it(run):
    page = {"merges": [], "vocabulary": [], "shown_heads": []}
    texts = [data for data in HOSTILE if isinstance(data, str)]
    found = run(page, "texts => texts.map(text => tokenizerOf([]).encode(text))", texts)
    assert found == [list(as_bytes(data)) for data in texts]
    whole = [data for data in texts if "\ud800" not in data]
    assert run(page, "texts => texts.map(text => tokenizerOf([]).decode(tokenizerOf([]).encode(text"
               ")))", whole) == whole


def test_names_and_numbers_where_there_is_no_tokenizer(run):
    encode = ("texts => texts.map(text => { try { return namedTokens([[0, 'a'], [1, '␣b'], "
              "[2, 'a']], 5).encode(text); } catch (error) { return error.message; } })")
    page = {"vocabulary": [], "shown_heads": []}
    assert run(page, encode, ["a #4\n␣b  #0", "", "c", "#5", "#", "#-1"]) == [
        [0, 4, 1, 0], [], "no token is called c", "no token is called #5", "no token is called #",
        "no token is called #-1"]
