"""safetensors files: from us, from its package, and from strangers. Needs the extra `interop`."""

import importlib.util
import json
import random
import subprocess
import sys

import numpy as np
import pytest

from minicircuits import files
from minicircuits.files import FileError, disk, tensors
from tests.draws import random_weights
from tests.test_files import KINDS, is_refused, mutated

extra = pytest.mark.extra
package = (importlib.import_module("safetensors.numpy")
           if importlib.util.find_spec("safetensors") else None)


def header(tensors, data=b""):
    text = tensors if isinstance(tensors, bytes) else json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text + data


def tensor(dtype="F64", shape=(1,), start=0, stop=8):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def test_without_the_package_one_line_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "safetensors", None)
    path = tmp_path / "w.safetensors"
    for work in (lambda: files.read_arrays(path), lambda: files.write_arrays(path, {})):
        with pytest.raises(FileError, match=r"needs the package safetensors, .*\[interop\]$"):
            work()
    assert not list(tmp_path.iterdir())


@extra
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("positions", ["shortformer", "none"])
def test_weights_come_back_bit_for_bit(tmp_path, positions, dtype):
    weights = random_weights(np.random.default_rng(0), positions=positions, dtype=dtype)
    files.save(tmp_path / "w.safetensors", weights)
    back = files.load(tmp_path / "w.safetensors")
    assert back.positions == positions
    for (name, actual), (_, desired) in zip(back.items(), weights.items(), strict=True):
        np.testing.assert_array_equal(actual, desired, name, strict=True)


@extra
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "<c16"])
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 5)])
def test_arrays_come_back_from_us_and_from_its_package(tmp_path, kind, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind)
    odd = {"C": array, "F": np.asarray(array, order="F"), "reversed": array[..., ::-1],
           "big": array.astype(np.dtype(kind).newbyteorder(">"))} if shape else {"C": array}
    files.write_arrays(tmp_path / "ours.safetensors", odd)
    plain = {name: np.ascontiguousarray(array, kind).reshape(shape) for name, array in odd.items()}
    (tmp_path / "its.safetensors").write_bytes(package.save(plain))
    assert (tmp_path / "ours.safetensors").read_bytes() == package.save(plain)
    for back in (files.read_arrays(tmp_path / "ours.safetensors"),
                 files.read_arrays(tmp_path / "its.safetensors"),
                 package.load((tmp_path / "ours.safetensors").read_bytes())):
        assert back.keys() == odd.keys()
        for name in odd:
            np.testing.assert_array_equal(back[name], odd[name])
            assert back[name].dtype == np.dtype(kind) and back[name].flags.writeable


@extra
@pytest.mark.parametrize("data, message", [
    (header({"a": tensor()}, bytes(8)), None),
    (header({"a": tensor(), "__metadata__": {"by": "somebody"}}, bytes(8)), None),
    (b"", "Error"), (bytes(7), "Error"), (bytes(8), "Error"),
    (b"\xff" * 8, "a header of 18446744073709551615 bytes"),
    (header(b" " * 200_001), "a header of 200001 bytes"),
    (header(b'"dtype"' * 1001), "1001 tensors"),
    (header(b"[" * 10 ** 5), "Error"), (header(b"\xff{}"), "Error"), (header(b"{} x"), "Error"),
    (header({"a": tensor()}, bytes(9)), "Error"), (header({"a": tensor()}, bytes(7)), "Error"),
    (header({"a": tensor(), "b": tensor()}, bytes(8)), "Error"),
    (header({"a": tensor(start=8, stop=16)}, bytes(16)), "Error"),
    (header({"a": tensor(shape=(2 ** 40, 2 ** 40))}, bytes(8)), "Error"),
    (header({"a": tensor(shape=(-1,))}, bytes(8)), "Error"),
    (header({"a": tensor(shape=(1.0,))}, bytes(8)), "Error"),
    (header({"a": tensor(shape=(0, 2 ** 62), stop=0)}), "bytes for float64 of shape"),
    (header({"a": tensor(shape=(1,) * 33)}, bytes(8)), "bytes for float64 of shape"),
    (header({"a": tensor("F16", (4,))}, bytes(8)), "a of F16"),
    (header({"a": tensor("BF16", (4,))}, bytes(8)), "a of BF16"),
    (header({"a": tensor("C64")}, bytes(8)), "a of C64"),
    (header({"a": tensor("O")}, bytes(8)), "Error"),
    (header({"a": tensor("BOOL", (8,))}, b"\1" * 7 + b"\2"), "booleans other"),
    (header({"../a b": tensor()}, bytes(8)), "a tensor named '../a b'"),
    (header({"a" * 101: tensor()}, bytes(8)), "a tensor named 'aaa"),
    (header({"": tensor()}, bytes(8)), "a tensor named ''"),
    (header(b'{"a":%b,"a":%b}' % ((json.dumps(tensor()).encode(),) * 2), bytes(8)), "a name twice"),
    (header({"a": tensor(), "__metadata__": {"dtype": ""}}, bytes(8)), "more than tensors")])
def test_what_strangers_wrote(tmp_path, data, message):
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    if message is None:
        np.testing.assert_array_equal(files.read_arrays(path)["a"], [0.0], strict=True)
    else:
        assert is_refused(path, f"must be .* of numbers; got .*{message}")


@extra
@pytest.mark.parametrize("arrays", [
    {"a": np.zeros(2, complex)}, {"a": np.float16(1)}, {"a": np.array(["text"])},
    {"a b": np.zeros(1)}, {str(n): np.zeros(1) for n in range(1001)}])
def test_what_cannot_be_read_is_not_written(tmp_path, arrays):
    with pytest.raises(FileError, match="can hold"):
        files.write_arrays(tmp_path / "bad.safetensors", arrays)
    assert not list(tmp_path.iterdir())


MEASURE = """
import sys
from minicircuits import files
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
files.read_arrays(sys.argv[1])
before = peak()
files.read_arrays(sys.argv[2])
print(peak() - before)
"""


@extra
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_whole_process_needs_no_more(tmp_path):
    """Twice the size of the file; tracemalloc would not see what the package allocates. In kB."""
    small, large = tmp_path / "small.safetensors", tmp_path / "large.safetensors"
    files.write_arrays(small, {"a": np.zeros(10)})
    files.write_arrays(large, {"a": np.ones(2**22), "b": np.ones(2**22)})
    grown = subprocess.run([sys.executable, "-c", MEASURE, small, large], check=True,
                           capture_output=True, text=True).stdout
    assert 2**16 <= int(grown) <= (2 * large.stat().st_size + 2**20) / 1024


@extra
def test_only_file_error_escapes(monkeypatch):
    rng, met, taken = random.Random(0), set(), 0
    weights = random_weights(np.random.default_rng(0), n_layers=1, n_heads=1, d_head=2)
    arrays = {name: np.ascontiguousarray(array)
              for name, array in files.weights_to_arrays(weights).items()}
    whole = package.save(arrays)
    length = int.from_bytes(whole[:8], "little")
    monkeypatch.setattr(disk, "read_bytes", lambda data: data.content)
    for _ in range(3000):
        if rng.random() < 0.2:
            data = mutated(rng, whole)
        else:                                   # a header that is all there, with mistakes in it
            data = header(mutated(rng, whole[8:8 + length]), whole[8 + length:])
        try:
            files.load(Named(data))
            taken += 1
        except FileError as error:
            assert len(str(error).splitlines()) == 1
            met.update(refusal for refusal in REFUSALS if refusal in str(error))
    assert met == set(REFUSALS)
    assert 20 < taken < 2000


class Named:
    """Bytes that pass for the path of a file."""

    def __init__(self, content):
        self.content = content

    def __str__(self):
        return "a.safetensors"


REFUSALS = ["a header of", "Error", "a tensor named", "must hold weights",
            "positions must be one of"]
