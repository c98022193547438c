"""Whatever a public function is handed: a right answer or an InputError, without a warning."""

import inspect
from collections.abc import Iterator
from dataclasses import fields, replace
from itertools import islice

import numpy as np
import pytest

import minicircuits as mc
from minicircuits.training.recipe import SHAPE
from minicircuits.training.tokenizer import Tokenizer
from tests.draws import random_case

try:
    import torch
except ImportError:
    torch = None

WEIGHTS, TOKENS = random_case(0, n_layers=2, n_heads=3, b=3, i=5, d_vocab=6, n_ctx=8)
OTHER = random_case(1, n_layers=1, n_heads=2, b=3, i=5, d_vocab=7)
ACTS = mc.forward(WEIGHTS, TOKENS)
CIRCUIT = mc.ov_circuit(WEIGHTS, 0, 0)
PLAIN = Tokenizer.from_merges(np.zeros((0, 2), int))
EVERYWHERE = dict(weights=WEIGHTS, tokens=TOKENS, acts=ACTS, layer=1, head=2, kind="V",
                  pattern=ACTS.pattern, low_rank=CIRCUIT, terms=None, start=None, k=2)
OWN = {                                    # what other arguments are called with, by function
    "relative_error": dict(actual=np.ones(3), desired=np.ones(3)),
    "save": dict(path="w.npz"), "load": dict(path="w.npz"),
    "init_weights": dict(n_layers=1, n_heads=2, d_model=4, d_head=2, d_vocab=5, n_ctx=6,
                         positions="standard"),
    "backward": dict(dlogits=ACTS.logits),
    "LowRank": dict(A=np.ones((3, 2)), B=np.ones((2, 3))),
    "fold_biases": dict(b_O=np.ones((2, WEIGHTS.d_model))),
    "fold_normalization": dict(kind="LN", eps=1e-5, biases={}, norms={}),
    "ledger": dict(tokens=TOKENS[:1], pattern=ACTS.pattern[:, :1], destination=2, target=3),
    "variance_shares": dict(terms=mc.expand_scores(WEIGHTS, TOKENS, ACTS.pattern, 1, 0)),
    "composition_baseline": dict(d_model=4),
    "skip_trigrams": dict(token_probabilities=np.full(6, 1 / 6)),
    "induction_eigenvalues": dict(earlier=(0, 1), later=(1, 0)),
    "matching_circuit": dict(earlier=(0, 1), later=(1, 0)),
    "attention_on": dict(places=np.tri(5, dtype=bool)[None].repeat(3, 0)),
    "induction_scores": dict(blocks=(2, 3), batch=2),
    "ordered_versus_shuffled": dict(block=3, batch=2),
    "random_blocks": dict(d_vocab=6, block=3, repeats=2, batch=2),
    "without_heads": dict(heads=[(0, 1)]), "loss_without_heads": dict(heads=[(0, 1)]),
    "patch_path": dict(other_tokens=TOKENS, sender=(0, 1), receiver=(1, 0), other_acts=ACTS),
    "sample": dict(tokens=[0, 1], length=2),
    "occurrences": dict(source=0, destination=1, out=2), "bugs": dict(source=0),
    "save_model": dict(path="m.npz", tokenizer=PLAIN, metadata={}),
    "load_model": dict(path="m.npz"), "load_pretrained": {},
    "Vocabulary": dict(names=["a", "b"]),
    "load_text": dict(paths=["book.txt"], n_ctx=8, d_vocab=260),
    "Recipe": {}, "first_weights": dict(n_layers=1, d_vocab=5, shape=SHAPE),
    "first_state": dict(recipe=mc.Recipe(steps=2)),
    "train": dict(state=mc.first_state(mc.Recipe(steps=1), WEIGHTS), batch=lambda step: TOKENS),
    "open_model": dict(path="w.npz", tokens=None),
    "from_transformer_lens": dict(source=mc.to_transformer_lens(WEIGHTS),
                                  positions=WEIGHTS.positions),
    "activations_from_transformer_lens": dict(
        cache=mc.activations_to_transformer_lens(WEIGHTS, TOKENS, ACTS)),
    "Weights": vars(WEIGHTS), "NormalizedWeights": dict(vars(WEIGHTS), n_normalized=5, eps=0.0,
                                                        positions="none", W_pos=None),
}
LEFT_OUT = ("InputError", "Activations", "NormalizedActivations")        # an error, and results
FUNCTIONS = sorted({*mc.__all__} - {*LEFT_OUT, "hand_built"})
SCALES = (1e-300, 1e-160, 1e-50, 0, 1e50, 1e60, 1e160, 1e300)
FINE = {("save", "path", "text"), ("save_model", "path", "text"), ("Vocabulary", "encoder", ...),
        ("train", "batch", "type"), ("train", "batch", "function"), ("train", "save", "type"),
        ("train", "save", "function"), ("load_text", "paths", "None"),
        ("load_text", "paths", "[]"), ("load_text", "paths", "()"),
        ("from_transformer_lens", "source", ...)}     # right, a caller's own mistake, or long
GARBAGE = {"object": object(), "type": int, "ragged": [[0, 1], [2]], "text": "strange",
           "bytes": b"\xff", "dict": {"a": object()}, "set": {1}, "function": len,
           "date": np.datetime64("2001-01-01"), "records": np.zeros(2, "i4,f4")}
OTHERS = {"None": None, "True": True, "-1": -1, "0": 0, "huge": 10 ** 30, "-huge": -10 ** 30,
          "1.5": 1.5, "nan": float("nan"), "inf": float("inf"), "1j": 1j, "[]": [], "[0]": [0],
          "()": (), "(9, 9)": (9, 9), "[-1, 0]": [-1, 0], "empty": "", "scalar": np.float64(1),
          "int8": np.int8(1), "no axes": np.array(2), "zeros": np.zeros((2, 0)),
          "objects": np.array([None, "a"]), "weights": OTHER.weights, "acts": mc.forward(*OTHER),
          "tokens": OTHER.tokens}


def arguments(name):
    """The arguments of a call of mc.`name` that is right."""
    parameters = inspect.signature(getattr(mc, name)).parameters
    given = {**EVERYWHERE, "rng": np.random.default_rng(0), "force": True, **OWN.get(name, {})}
    return {name: given[name] for name in parameters if name in given}


def of_array(array):
    """What is like an array of numbers, or has something wrong in it."""
    yield from {"more axes": array[None], "half": array[..., :array.shape[-1] // 2],
                "complex": array + 0j, "list": array.tolist(),
                "uint64": np.abs(array).astype(np.uint64)}.items()
    yield from ((f"as {kind}", array.astype(kind)) for kind in ("O", "str", "bool", "f4", "f2"))
    first = np.arange(array.size).reshape(array.shape) == 0
    yield from ((f"a {strange}", np.where(first, strange, array))
                for strange in (np.nan, np.inf, -np.inf, 1e300, 1e-300))
    yield from ((f"times {scale}", array * scale) for scale in SCALES)
    if torch:
        yield "a tensor", torch.tensor(array)
        yield "bfloat16", torch.tensor(array, dtype=torch.bfloat16)
        yield "a parameter", torch.tensor(array, dtype=torch.float64, requires_grad=True)


def remade(right, change):
    """The same `Weights` or `LowRank` with every array changed."""
    if isinstance(right, mc.LowRank):
        return mc.LowRank(change(right.A), change(right.B))
    return replace(right, **{name: change(W) for name, W in right.items()})


def wrong_things(right):
    """Pairs (what it is, thing) to hand to a function in place of what is `right`."""
    yield from {**GARBAGE, **OTHERS}.items()
    if isinstance(right, (mc.Weights, mc.LowRank)):
        for scale in SCALES:
            yield f"times {scale}", remade(right, lambda W: W * scale)
        for dtype in np.float32, complex:
            yield dtype.__name__, remade(right, lambda W: W.astype(dtype))
    elif isinstance(right, mc.Activations):
        for field in fields(right):
            array = getattr(right, field.name)
            for change, wrong in (*of_array(array), ("None", None)):
                yield f"{field.name} {change}", replace(right, **{field.name: wrong})
    elif isinstance(right, np.ndarray):
        yield from of_array(right)
    elif isinstance(right, (list, tuple)) and right:
        yield from {"with None": [*right, None], "with text": [*right, "a"],
                    "nested": [right, right], "an array": np.array(right, object)}.items()
    elif isinstance(right, dict) and right:
        for what, thing in {**GARBAGE, "None": None}.items():
            yield f"with {what}", {**right, min(right): thing}
        yield "keys", {**right, 3: 4}


def called(function, arguments):
    """Its answer, however it comes; the first of many."""
    answer = function(**arguments)
    return list(islice(answer, 3)) if isinstance(answer, Iterator) else answer


@pytest.fixture
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mc.save("w.npz", WEIGHTS)
    (tmp_path / "book.txt").write_text("the cat sat on the mat. " * 30)
    small = mc.init_weights(1, 1, 4, 2, 257, 4, "standard", np.random.default_rng(0))
    mc.save_model("m.npz", small, PLAIN, {})
    monkeypatch.setitem(OWN["save_model"], "weights", small)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_wrong_things(name, in_a_folder):
    function, right, failed = getattr(mc, name), arguments(name), []
    called(function, arguments(name))
    for parameter in inspect.signature(function).parameters:
        for what, thing in wrong_things(right.get(parameter)):
            if FINE & {(name, parameter, what), (name, parameter, ...)}:
                continue
            for mode in "warn", "raise":
                try:
                    with np.errstate(all=mode):
                        called(function, {**arguments(name), parameter: thing})
                    if what in GARBAGE:
                        failed.append(f"{parameter} = {what}: is taken")
                except mc.InputError as error:
                    if "\n" in str(error):
                        failed.append(f"{parameter} = {what}: {error}")
                except Exception as error:
                    failed.append(f"{parameter} = {what}: {type(error).__name__} {error}"[:120])
    assert not failed, "\n".join(failed)


def test_what_is_like_the_right_thing_is_as_right():
    """Lists, unsigned integers, heads as lists, NumPy's numbers, tensors."""
    expected = mc.loss_without_heads(WEIGHTS, TOKENS, [(0, 1)])
    for tokens in TOKENS.tolist(), TOKENS.astype(np.uint64), TOKENS.astype(np.int8):
        assert mc.loss_without_heads(WEIGHTS, tokens, [[0, np.int8(1)]]) == expected
    path = mc.patch_path(WEIGHTS, TOKENS, TOKENS[::-1], [0, 1], [1, 0])
    assert np.array_equal(path, mc.patch_path(WEIGHTS, TOKENS, TOKENS[::-1], (0, 1), (1, 0)))
    assert mc.relative_error(np.uint8([1]), np.uint8([2])) == 0.5
    with pytest.raises(TypeError):
        mc.loss(WEIGHTS, TOKENS, 1)


@pytest.mark.extra
def test_tensors_are_arrays():
    tensors = {name: torch.nn.Parameter(torch.tensor(W)) for name, W in WEIGHTS.items()}
    weights = mc.Weights(**tensors, positions=WEIGHTS.positions)
    assert mc.loss(weights, torch.tensor(TOKENS)) == mc.loss(WEIGHTS, TOKENS)
    halves = {name: torch.tensor(W, dtype=torch.bfloat16) for name, W in WEIGHTS.items()}
    assert mc.Weights(**halves, positions=WEIGHTS.positions).dtype == np.float32
