"""safetensors files: from us, from its package (the extra `interop`), and from strangers."""

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


def test_without_the_package_files_are_read_and_one_line_says_that_none_is_written(
        tmp_path, monkeypatch):
    monkeypatch.setattr(tensors, "safetensors", None)
    path = tmp_path / "w.SAFETENSORS"
    with pytest.raises(FileError, match=r"needs the package safetensors, .*\[interop\]$"):
        files.write_arrays(path, {"a": np.zeros(1)})
    assert not list(tmp_path.iterdir())
    path.write_bytes(header({"a": tensor()}, bytes(8)))
    np.testing.assert_array_equal(files.read_arrays(path)["a"], [0.0], strict=True)


@pytest.mark.parametrize("dtype, bits, values", [
    ("F16", [0x3C00, 0xC000, 0x0001, 0x7C00], [1, -2, 2.0 ** -24, np.inf]),
    ("BF16", [0x3F80, 0xC000, 0x0001, 0x7F80], [1, -2, 2.0 ** -133, np.inf])])
def test_half_precision_is_widened(tmp_path, dtype, bits, values):
    data = header({"a": tensor(dtype, (2, 2))}, np.array(bits, "<u2").tobytes())
    (tmp_path / "half.safetensors").write_bytes(data)
    widened = files.read_arrays(tmp_path / "half.safetensors")["a"]
    np.testing.assert_array_equal(widened, np.reshape(values, (2, 2)).astype(np.float32),
                                  strict=True)
    assert widened.flags.writeable and widened.flags.c_contiguous


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


@pytest.mark.parametrize("data, message", [
    (header({"a": tensor()}, bytes(8)), None),
    (header({"a": tensor(), "__metadata__": {"by": "somebody"}}, bytes(8)), None),
    (header({"a": tensor(), "__metadata__": {"dtype": "", "a": "dtype"}}, bytes(8)), None),
    (header(b' {"a":%b}  ' % json.dumps(tensor()).encode(), bytes(8)), None),
    (header({"b": tensor(start=8, stop=16), "a": tensor()}, bytes(16)), None),
    (header({"b": tensor(shape=(0,), stop=0), "a": tensor()}, bytes(8)), None),
    (b"", "a part of one"), (bytes(7), "a part of one"), (bytes(8), "Expecting value"),
    (b"\xff" * 8, "a header of 18446744073709551615 bytes"),
    (header(b" " * 200_001), "a header of 200001 bytes"),
    (header({str(n): tensor() for n in range(1001)}), "1001 tensors"),
    (header(b"[" * 10 ** 5), "recursion|depth"), (header(b"\xff{}"), "can't decode"),
    (header(b"{} x"), "Extra data"), (header(b"[]"), "a header without names"),
    (header({"a": tensor()}, bytes(9)), "bytes that belong to no tensor"),
    (header({"a": tensor()}, bytes(7)), "a out of place"),
    (header({"a": tensor()})[:-1], "a part of one"),
    (header({"a": tensor(), "b": tensor()}, bytes(8)), "b out of place"),
    (header({"a": tensor(start=8, stop=16)}, bytes(16)), "a out of place"),
    (header({"a": tensor(start=0, stop=9)}, bytes(9)), "9 bytes for float64"),
    (header({"a": tensor(start=8, stop=0)}, bytes(8)), "a out of place"),
    (header({"a": tensor(shape=(2 ** 40, 2 ** 40))}, bytes(8)), "bytes for float64 of shape"),
    (header({"a": tensor(shape=(-1,))}, bytes(8)), "a without dtype"),
    (header({"a": tensor(shape=(1.0,))}, bytes(8)), "a without dtype"),
    (header({"a": tensor(shape=(True,))}, bytes(8)), "a without dtype"),
    (header({"a": {**tensor(), "shape": 1}}, bytes(8)), "a without dtype"),
    (header({"a": {**tensor(), "data_offsets": [8]}}, bytes(8)), "a without dtype"),
    (header({"a": {**tensor(), "name": 1}}, bytes(8)), "a without dtype"),
    (header({"a": []}, bytes(8)), "a without dtype"),
    (header({"a": tensor(shape=(0, 2 ** 62), stop=0)}), "bytes for float64 of shape"),
    (header({"a": tensor(shape=(1,) * 33)}, bytes(8)), "bytes for float64 of shape"),
    (header({"a": tensor("C64")}, bytes(8)), "a of 'C64'"),
    (header({"a": tensor("O")}, bytes(8)), "a of 'O'"),
    (header({"a": tensor(["F64"])}, bytes(8)), "a of "),
    (header({"a": tensor("BOOL", (8,))}, b"\1" * 7 + b"\2"), "booleans other"),
    (header({"../a b": tensor()}, bytes(8)), "a tensor named '../a b'"),
    (header({"a" * 101: tensor()}, bytes(8)), "a tensor named 'aaa"),
    (header({"": tensor()}, bytes(8)), "a tensor named ''"),
    (header(b'{"a":%b,"a":%b}' % ((json.dumps(tensor()).encode(),) * 2), bytes(8)),
     "a repeated key"),
    (header(b'{"__metadata__":{},"__metadata__":{}}'), "a repeated key")])
def test_what_strangers_wrote(tmp_path, data, message):
    path = tmp_path / "file.safetensors"
    path.write_bytes(data)
    if message is None:
        np.testing.assert_array_equal(files.read_arrays(path)["a"], [0.0], strict=True)
    else:
        assert is_refused(path, f"file.safetensors' must be .*; got .*({message})")


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


def test_only_file_error_escapes(monkeypatch):
    rng, met, taken = random.Random(0), set(), 0
    weights = random_weights(np.random.default_rng(0), n_layers=1, n_heads=1, d_head=2)
    named, content = {"__metadata__": {"dtype": "F64"}}, b""
    for name, array in files.weights_to_arrays(weights).items():
        kind = next(kind for kind in tensors.NAMES if tensors.NAMES[kind] == array.dtype.str)
        stop = len(content) + array.nbytes
        named[name] = tensor(kind, array.shape, len(content), stop)
        content += array.tobytes()
    whole = header(named, content)
    length = len(whole) - len(content) - 8
    monkeypatch.setattr(disk, "read_bytes", lambda path: data)
    for _ in range(3000):
        if rng.random() < 0.2:
            data = mutated(rng, whole)
        else:                                   # a header that is all there, with mistakes in it
            data = header(mutated(rng, whole[8:8 + length]), whole[8 + length:])
        try:
            files.load("a.safetensors")
            taken += 1
        except FileError as error:
            assert len(str(error).splitlines()) == 1
            met.update(refusal for refusal in REFUSALS if refusal in str(error))
    assert met == set(REFUSALS)
    assert 20 < taken < 2000


REFUSALS = ["a header of", "strict JSON", "a tensor named", "without dtype", "out of place",
            "bytes for", "a part of one", "must hold weights", "positions must be one of"]
