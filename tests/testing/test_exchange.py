"""Vectors as files: what is stored, what is exported, and what strangers make of it."""

import hashlib
import json
import random
import tracemalloc

import numpy as np
import pytest

from minicircuits import files
from minicircuits.files import FileError
from minicircuits.interop import from_transformer_lens
from minicircuits.notation import InputError
from minicircuits.testing import assert_matches, check, vectors
from minicircuits.testing.exchange import CONVENTIONS, read_answer, verify_case, write_case
from minicircuits.testing.vectors import core, drawn, find
from tests.test_files import mutated
from tests.testing.candidates import model

CONTROL = core()["exact"]


# The core set.

def test_the_core_set_is_small_and_starts_with_a_control():
    size = vectors.STORE.stat().st_size + vectors.CHECKSUMS.stat().st_size
    assert size <= 200_000
    assert not CONTROL.hunts and next(iter(core())) == "exact"
    ordinary = [id for id in core() if id.startswith("ordinary")]
    assert 2 * len(ordinary) < len(core())


@pytest.mark.parametrize("id", core())
def test_stored_numbers_are_those_on_record_and_of_the_loops(id):
    vector = core()[id]
    assert vectors.recorded(vector)
    if id == "large":                            # the loops would take 20 s
        return assert_matches(model, cases=[vector])
    found, expected = vectors.by_loops(vector), vector.reference.arrays()
    for name, array in found.items():
        scale = 1e-13 * max(1, abs(array).max(initial=0))
        assert np.allclose(array, expected[name], rtol=1e-12, atol=scale), name
    assert check(vector, found)


def test_writing_the_core_set_again_gives_the_same_inputs(tmp_path):
    vectors.write_core(tmp_path / "core.npz", tmp_path / "core.json")
    again, now = (files.read_json(path) for path in (tmp_path / "core.json", vectors.CHECKSUMS))
    assert {id: sums[0] for id, sums in again.items()} == {id: sums[0] for id, sums in now.items()}


def test_inputs_use_every_bit_or_are_the_same_in_every_precision():
    def bits(W):
        return {n for n in (8, 24, 53) if (np.frexp(W)[0] * 2.0 ** n % 1 == 0).all()}

    for vector in [*core().values(), *map(drawn, range(1, 30))]:
        found = [bits(W) for _, W in vector.weights.items() if W.size > 9]
        assert not found or {8, 24, 53} in found or {53} in found, vector.id   # 8: a bfloat16's
        assert all(W == {8, 24, 53} for W in found) or {8, 24, 53} not in found, vector.id
        assert vector.tokens.min() >= 0 and vector.tokens.max() < vector.weights.d_vocab


def test_raw_integers_do_not_change():
    """Whatever the version of NumPy and the machine: every input starts from these."""
    assert vectors.integers(7, (2, 3)).tolist() == [[16, 50, 35], [-36, -26, 47]]


def test_drawn_vectors_meet_every_mode_and_edge():
    many = [drawn(n) for n in range(1, 200)]
    assert {v.weights.positions for v in many} == {"shortformer", "standard", "none"}
    assert {v.weights.n_layers for v in many} == {0, 1, 2, 3}
    for size, largest in ("n_heads", 6), ("d_head", 9), ("d_model", 9):
        assert {getattr(v.weights, size) for v in many} == set(range(1, largest + 1))
    assert any(v.weights.d_head > v.weights.d_model for v in many)
    assert any(v.tokens.max() > 255 for v in many) and any(v.tokens.shape[1] > 128 for v in many)


@pytest.mark.parametrize("id", ["", "nonsense", "drawn2-", "drawn2-1234567890", "drawn-1",
                                "drawn2-1\n", "../exact"])
def test_an_unknown_vector(id):
    with pytest.raises(InputError, match="a vector must be one of exact, no-layers"):
        find(id)


# Folders.

@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_case_is_read_with_nothing_but_its_manifest(tmp_path, dtype):
    """As a reader in another language does it: offset, shape, little-endian, C order."""
    vector = core()["ordinary-standard"]
    write_case(tmp_path / "case", vector, dtype=dtype)
    manifest = json.loads((tmp_path / "case" / "manifest.json").read_text())
    assert (manifest["id"], manifest["positions"]) == ("ordinary-standard", "standard")
    found = {}
    for order, tensor in enumerate(manifest["tensors"]):
        data = (tmp_path / "case" / tensor["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == tensor["sha256"] and tensor["order"] == order
        assert tensor["dtype"] == ("<i4" if tensor["name"] == "tokens" else np.dtype(dtype).str)
        array = np.frombuffer(data, tensor["dtype"], offset=tensor["offset"])
        found[tensor["name"]] = array.reshape(tensor["shape"])
        assert len(tensor["axes"]) == array.reshape(tensor["shape"]).ndim
        assert np.array_equal(np.load(tmp_path / "case" / tensor["file"]), found[tensor["name"]])
    for name, W in vector.weights.items():
        assert np.array_equal(found[name], W), name
    assert np.array_equal(found["tokens"], vector.tokens)
    for name, array in vector.reference.arrays().items():
        assert np.array_equal(found[name], array.astype(dtype)), name
    assert verify_case(tmp_path / "case") == []


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("id", [id for id in core() if core()[id].stored])
def test_what_is_expected_is_a_right_answer_in_either_convention(tmp_path, id, convention):
    write_case(tmp_path / "case", core()[id], convention)
    answer = read_answer(tmp_path / "case", core()[id], convention)
    assert answer.keys() == core()[id].reference.arrays().keys()
    assert check(core()[id], answer)


def test_the_weights_of_an_exported_case_are_transformer_lenss(tmp_path):
    vector = core()["ordinary-shortformer"]
    write_case(tmp_path / "case", vector, "transformer_lens")
    manifest = files.read_json(tmp_path / "case" / "manifest.json")
    state = {tensor["name"]: np.load(tmp_path / "case" / tensor["file"])
             for tensor in manifest["tensors"] if tensor["role"] == "given"}
    assert np.array_equal(state.pop("tokens"), vector.tokens)
    back = from_transformer_lens(state, "shortformer")
    assert all(np.array_equal(W, getattr(back, name)) for name, W in vector.weights.items())


def test_a_changed_file_is_found(tmp_path):
    write_case(tmp_path / "case", CONTROL)
    path = tmp_path / "case" / "q.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    assert verify_case(tmp_path / "case") == ["q.npy"]


def test_nothing_is_overwritten_unless_asked(tmp_path):
    write_case(tmp_path / "case", CONTROL)
    with pytest.raises(FileError, match="it exists already"):
        write_case(tmp_path / "case", CONTROL)
    write_case(tmp_path / "case", CONTROL, force=True)


# Answers of strangers.

def answer(tmp_path, **arrays):
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


@pytest.mark.parametrize("arrays, convention, says", [
    ({"logit": np.zeros(3)}, "paper", "must hold tensors named residual, q.*got 'logit'"),
    ({"logits": np.zeros((2, 3))}, "paper", r"logits must have axes \(b i v\); got shape \(2, 3\)"),
    ({"logits": np.array(["a"])}, "paper", "must be an array of numbers"),
    ({"loss": np.zeros(2)}, "paper", r"loss must have axes \(\); got shape \(2,\)"),
    ({"blocks.0.attn.hook_q": np.zeros((2, 4, 1, 4))}, "transformer_lens", "blocks.1.attn.hook_q"),
    ({"blocks.0.attn.hook_q": np.zeros((2, 4, 1, 4)), "blocks.1.attn.hook_q": np.zeros((1,) * 4)},
     "transformer_lens", "q must have one shape in all layers"),
])
def test_what_is_no_answer_is_refused(tmp_path, arrays, convention, says):
    with pytest.raises(FileError, match=says) as caught:
        read_answer(answer(tmp_path, **arrays), CONTROL, convention)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_loss_may_be_an_array_of_one_number(tmp_path, shape):
    found = read_answer(answer(tmp_path, loss=CONTROL.reference.arrays()["loss"].reshape(shape)),
                        CONTROL)
    assert check(CONTROL, found)


def test_given_tensors_in_an_answer_are_passed_over(tmp_path):
    found = model(CONTROL.weights, CONTROL.tokens)
    folder = answer(tmp_path, logits=found["logits"], W_E=np.zeros(1), tokens=np.zeros(1))
    assert read_answer(folder, CONTROL).keys() == {"logits"}


def test_a_folder_that_is_not_there(tmp_path):
    for read in (lambda path: read_answer(path, CONTROL), verify_case):
        with pytest.raises(FileError, match="cannot read"):
            read(tmp_path / "none")


@pytest.mark.parametrize("manifest", [
    {}, [], 3, {"format": "other"}, {"format": "minicircuits vector 1"},
    {"format": "minicircuits vector 1", "tensors": 3},
    {"format": "minicircuits vector 1", "tensors": [{}]},
    *({"format": "minicircuits vector 1", "tensors": [{"file": name, "sha256": ""}]}
      for name in ("/etc/passwd", "../exact/q.npy", "q", "", None, 3, ["q.npy"], "q\n.npy")),
])
def test_a_manifest_that_is_none(tmp_path, manifest):
    files.write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(FileError, match="must hold the manifest of a case") as caught:
        verify_case(tmp_path)
    assert "\n" not in str(caught.value)


def test_damaged_files_take_little_memory(tmp_path):
    """At most twice the file's size and 1 MiB, whatever they say of themselves. Only FileError
    comes: tests/test_fuzzing.py and tests/test_files.py have many more.
    """
    case = tmp_path / "case"
    write_case(case, CONTROL, expected=False)
    rng = random.Random(0)
    tracemalloc.start()
    try:
        for path, read in ((case / "W_Q.npy", files.read_npy),
                           (case / "manifest.json", lambda path: verify_case(path.parent))):
            whole = path.read_bytes()
            for data in [whole, *(mutated(rng, whole) for _ in range(200))]:
                path.write_bytes(data)
                before = tracemalloc.get_traced_memory()[0]
                tracemalloc.reset_peak()
                try:
                    read(path)
                except FileError as error:
                    assert data is not whole and len(str(error).splitlines()) == 1
                peak = tracemalloc.get_traced_memory()[1] - before
                assert peak <= 2 * len(data) + 2 ** 20, (path.name, len(data), peak)
            path.write_bytes(whole)
    finally:
        tracemalloc.stop()
