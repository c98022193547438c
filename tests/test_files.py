"""Files: what is written comes back bit for bit, what strangers wrote is taken or refused.

A hostile file is made from a sound one by one change, and the sound one is read beside it.
"""

import errno
import io
import os
import random
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minicircuits import files
from minicircuits.files import FileError, disk, strict_json
from minicircuits.notation import InputError
from tests.draws import draw_case, random_weights

KINDS = ["<f4", "<f8", "<c16", "|b1", "|i1", "<i2", "<i4", "<i8", "|u1", "<u2", "<u4", "<u8"]


def npy(array, old="{", new="{"):
    """The bytes of a `.npy`, with something else in the place of one part of its header."""
    array = np.asarray(array)
    text = f"{{'descr': '{array.dtype.str}', 'fortran_order': False, 'shape': {array.shape}, }}\n"
    assert text.count(old) == 1
    return header(text.replace(old, new), array.tobytes())


def header(text, content=b"", version=1):
    """A `.npy` with any header at all."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode("latin-1") + content


def npz(path, **members):
    """A zip file of these members, whose bytes are what they are, with right checksums."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)
    return path


def is_refused(path, message, read=files.read_arrays):
    with pytest.raises(FileError, match=message) as caught:
        read(path)
    assert len(str(caught.value).splitlines()) == 1
    return True


# What is written comes back

@settings(deadline=None)
@given(draw_case(), st.sampled_from(["float32", "float64", "complex128"]))
def test_weights_come_back_bit_for_bit(tmp_path_factory, case, dtype):
    path = tmp_path_factory.mktemp("weights") / "weights.npz"
    weights = case.weights.astype(dtype)
    files.save(path, weights)
    back = files.load(path)
    assert back.positions == weights.positions
    assert [name for name, _ in back.items()] == [name for name, _ in weights.items()]
    for (name, actual), (_, desired) in zip(back.items(), weights.items()):
        assert (actual.dtype, actual.shape) == (desired.dtype, desired.shape), name
        assert actual.tobytes() == desired.tobytes(), name
        assert actual.flags.writeable and actual.flags.c_contiguous and actual.flags.aligned


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(), (1,), (0, 3), (2, 3, 5)])
def test_arrays_come_back_from_us_and_from_numpy(tmp_path, kind, shape):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 2, shape).astype(kind) * np.asarray(3).astype(kind)
    odd = {"C": array, "F": np.asarray(array, order="F"), "reversed": array[..., ::-1],
           "big": array.astype(np.dtype(kind).newbyteorder(">"))} if shape else {"C": array}
    files.write_arrays(tmp_path / "ours.npz", odd)
    np.savez(tmp_path / "numpys.npz", **odd)
    for path in (tmp_path / "ours.npz", tmp_path / "numpys.npz"):
        back, numpys = files.read_arrays(path), np.load(path, allow_pickle=False)
        assert list(back) == list(odd) == list(numpys)
        for name in odd:
            np.testing.assert_array_equal(back[name], odd[name], strict=name != "big")
            np.testing.assert_array_equal(numpys[name], odd[name])
            assert back[name].dtype == np.dtype(kind) and back[name].dtype.isnative
            assert back[name].flags.c_contiguous and back[name].flags.writeable


def test_equal_arrays_give_equal_bytes(tmp_path):
    array = np.arange(6.0).reshape(2, 3)
    files.write_arrays(tmp_path / "one", {"a": array})
    for n, other in enumerate([array.astype(">f8"), np.asfortranarray(array), array[::-1][::-1]]):
        files.write_arrays(tmp_path / str(n), {"a": other})
        assert (tmp_path / str(n)).read_bytes() == (tmp_path / "one").read_bytes()
    assert zlib.crc32((tmp_path / "one").read_bytes()) == 544179549


@pytest.mark.parametrize("kind, spelled", [
    ("<f8", "=f8"), ("<f8", "f8"), ("<f8", "float64"), (">f8", ">f8"), ("<f4", "float32"),
    ("<i4", "int32"), ("|b1", "bool"), ("<c16", "complex128"), ("|u1", "u1")])
def test_spellings_of_a_dtype(tmp_path, kind, spelled):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(kind)
    path = npz(tmp_path / "file.npz", a=npy(array, array.dtype.str, spelled))
    np.testing.assert_array_equal(files.read_arrays(path)["a"],
                                  array.astype(np.dtype(kind).newbyteorder("=")), strict=True)


@pytest.mark.parametrize("kind", ["<f2", ">f2"])
def test_float16_is_widened(tmp_path, kind):
    array = np.array([[1, -2, 2.0 ** -24], [np.inf, 0, 1 / 3]], kind)
    np.savez(tmp_path / "file.npz", a=array)
    np.testing.assert_array_equal(files.read_arrays(tmp_path / "file.npz")["a"],
                                  array.astype(np.float32), strict=True)


def test_special_numbers_are_not_judged_by_read_arrays(tmp_path):
    odd = np.array([np.nan, np.inf, -0.0, 5e-324])
    files.write_arrays(tmp_path / "odd.npz", {"odd": odd})
    assert files.read_arrays(tmp_path / "odd.npz")["odd"].tobytes() == odd.tobytes()


@pytest.mark.parametrize("arrays", [
    {"a": np.array(["text"])}, {"a": np.array([None])}, {"a": np.float16(1)},
    {"a": np.array([np.datetime64(0, "s")])}, {"a": np.zeros(2, [("x", "f8")])},
    {"a": np.longdouble(1)}, {"": np.zeros(1)}, {"a b": np.zeros(1)}, {"é": np.zeros(1)},
    {"a\n": np.zeros(1)}, {"a" * 101: np.zeros(1)}, {str(n): np.zeros(1) for n in range(1001)}])
def test_what_cannot_be_read_is_not_written(tmp_path, arrays):
    with pytest.raises(FileError, match="can hold"):
        files.write_arrays(tmp_path / "bad.npz", arrays)
    assert not list(tmp_path.iterdir())


def test_a_file_has_a_largest_size(tmp_path, monkeypatch):
    files.write_arrays(tmp_path / "a.npz", {"a": np.zeros(1000)})
    monkeypatch.setattr(disk, "MAX_BYTES", 8999)
    with pytest.raises(FileError, match="can hold 1000 arrays and 8999 bytes; got 1 and 9024"):
        files.write_arrays(tmp_path / "b.npz", {"a": np.zeros(1000)})
    assert is_refused(tmp_path / "a.npz", "at most 99 bytes expected",
                      lambda path: files.read_bytes(path, largest=99))


# What strangers wrote

@pytest.mark.parametrize("data, message", [
    (npy(np.zeros(3)), None),
    (npy(np.zeros((0, 3))), None),
    (header("{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n", bytes(16)), None),
    (header("{'descr':'<f8','fortran_order':True,'shape':(2,1)}", bytes(16), version=3), None),
    (header("{'shape': (2L, 1L), 'fortran_order': False, 'descr': '<f8'}", bytes(16)), None),
    (header('{"fortran_order": False, "descr": "float64", "shape": (2,)}\n', bytes(16)), None),
    (npy(np.zeros(3)) + b"\0", "25 bytes for float64"),
    (npy(np.zeros(3))[:-1], "23 bytes for float64"),
    (npy(np.zeros(3), "(3,)", "(9999999999,)"), "bytes for float64 of shape"),
    (npy(np.zeros(3), "(3,)", "(4294967296, 4294967299)"), "bytes for float64 of shape"),
    (npy(np.zeros((0, 3)), "(0, 3)", "(0, 9999999999, 9999999999)"), "0 bytes for float64"),
    (npy(np.zeros(1), "(1,)", "(" + "1, " * 40 + ")"), "8 bytes for float64 of shape"),
    (npy(np.zeros(3), "(3,)", "(-3,)"), "the header"),
    (npy(np.zeros(3), "(3,)", "(3.0,)"), "the header"),
    (npy(np.zeros(3), "False", "1    "), "the header"),
    (npy(np.zeros(3), "<f8", "<f2"), "24 bytes for float16"),
    (npy(np.zeros(3), "<f8", "float128"), "the header"),
    (npy(np.zeros(3), "'<f8'", "True"), "the header"),
    (npy(np.zeros(3), "False", "'<f8'"), "the header"),
    (npy(np.zeros(3), "(3,)", "False"), "the header"),
    (npy(np.zeros(3), "(3,)", "(L,)"), "the header"),
    (npy(np.zeros(3), "descr", "shape"), "the header"),
    (npy(np.zeros(3), "descr", "order"), "the header"),
    (npy(np.zeros(3), "}", "'descr': '<f8', }"), "the header"),
    (npy(np.zeros(3), "<f8", "|O8"), "the header"),
    (npy(np.zeros(3), "<f8", "<U2"), "the header"),
    (npy(np.zeros(3), "<f8", "|V8"), "the header"),
    (npy(np.zeros(3, bool))[:-1] + b"\2", "booleans other than 0 and 1"),
    (header("{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (2,), }"), "the header"),
    (header("(" * 9000), "the header"),
    (header(" " * 10_001, version=2), "another kind of file"),
    (header("", version=4), "another kind of file"),
    (b"\x93NUMPY\2\0\xff\xff\xff\xff", "another kind of file"),
    (b"\x93NUMPY\1\0\0", "the header"),
    (npy(np.zeros(3)).replace(b"NUMPY", b"NUMPI"), "another kind of file"),
    (b"\x80\4\x95", "another kind of file"),
    (b"", "another kind of file")])
def test_members(tmp_path, data, message):
    path = npz(tmp_path / "file.npz", good=npy(np.zeros(2)), member=data)
    if message is None:
        assert list(files.read_arrays(path)) == ["good", "member"]
    else:
        assert is_refused(path, f"^member in .* must be an array of numbers; got .*{message}")


def sound():
    """The bytes of a file with the members a and b, of 136 bytes each."""
    file = io.BytesIO()
    npz(file, a=npy(np.float64(1)), b=npy(np.float64(2)))
    return bytearray(file.getvalue())


def changed(at, value):
    """`sound` with bytes replaced, `at` counted from the first `PK12` (the directory)."""
    data = sound()
    at += data.index(b"PK\1\2")
    data[at:at + len(value)] = value
    return data


def padded(junk, in_directory):
    """Bytes that belong to nothing, between members and directory or at the directory's end."""
    data = sound()
    directory, end = data.index(b"PK\1\2"), data.index(b"PK\5\6")
    at, field, size = ((end, 12, end - directory) if in_directory else (directory, 16, directory))
    data[end + field:end + field + 4] = struct.pack("<L", size + len(junk))
    return data[:at] + junk + data[at:]


def nested():
    """The second member is a part of the first one's array."""
    def parts(name, array):
        data = npz(io.BytesIO(), **{name: npy(array)}).getvalue()
        directory = data.index(b"PK\1\2")
        return data[:directory], data[directory:data.index(b"PK\5\6")]

    inner, second = parts("b", np.float64(2))
    outer, first = parts("a", np.frombuffer(inner, np.uint8))
    directory = first + second[:42] + struct.pack("<L", len(outer) - len(inner)) + second[46:]
    return outer + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 2, 2, len(directory),
                                           len(outer), 0)


def saved_by(save, **options):
    file = io.BytesIO()
    save(file, **options)
    return file.getvalue()


@pytest.mark.parametrize("data, message", [
    (sound() + b"\0", "bytes after its end"),
    (b"\0" + sound(), "another kind of file"),
    (b"PK" + sound(), "bytes after its end"),
    (sound()[:-1], "a part of one"),
    (sound()[:100], "a part of one"),
    (b"PK", "a part of one"),
    (b"", "another kind of file"),
    (npy(np.zeros(3)), "another kind of file"),
    (sound(), None),
    (padded(b"junk", in_directory=False), "bytes that belong to no member"),
    (padded(b"junk", in_directory=True), "bytes that belong to no member"),
    (nested(), "b.npy out of place"),
    (sound().replace(b"b.npy", b"a.npy"), "a.npy twice"),
    (sound().replace(b"PK\5\6", b"PK\5\5"), "a part of one"),
    (sound()[:-2] + b"\1\0", "bytes after its end"),
    (sound()[:-2] + b"\1\0!", "bytes after its end"),
    (sound().replace(b"PK\3\4", b"PK\3\3", 1), "a.npy out of place"),
    (changed(0, b"PK\1\1"), "a member named"),
    (changed(20, b"\xff\xff\xff\0" * 2), "a.npy damaged"),
    (saved_by(np.savez_compressed, a=np.zeros(9)), "compressed"),
    (changed(8, b"\1"), "encrypted"),
    (changed(8, b"\x08"), "streamed"),
    (changed(9, b"\x08"), None),                       # the name is UTF-8: so it is
    (changed(10, b"\x08"), "compressed"),
    (changed(16, b"?"), "a.npy damaged"),
    (changed(20, b"?"), "a.npy out of place"),
    (changed(24, b"\xff\xff\xff\xff"), "a.npy out of place"),
    (changed(28, b"\xff\xff"), "a member named"),
    (changed(30, b"\1"), "a member named"),
    (changed(42, b"\1"), "a part of one|out of place"),
    (changed(45, b"\xff"), "a part of one"),
    (changed(46, b"\0"), "a member named"),
    (changed(46, b"c"), "c.npy out of place"),
    (sound().replace(b"a.npy", b"a.txt"), "a member named 'a.txt'"),
    (sound().replace(b"\0\2\0\2\0", b"\0\2\0\3\0"), "3 members"),
    (sound().replace(b"\0\2\0\2\0", b"\0\3\0\3\0"), "a member named|a part of one"),
    (sound().replace(b"\0\2\0\2\0", b"\0\1\0\1\0"), "bytes that belong to no member"),
    (saved_by(lambda file: npz(file, **{str(n): b"" for n in range(1001)})), "1001 members")])
def test_containers(tmp_path, data, message):
    path = tmp_path / "file.npz"
    path.write_bytes(data)
    if message is None:
        assert list(files.read_arrays(path)) == ["a", "b"]
    else:
        assert is_refused(path, f"must be an uncompressed .npz; got .*({message})")


def test_a_flipped_bit_is_found_wherever_it_matters(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    weights = random_weights(np.random.default_rng(0), n_layers=1, n_heads=1)
    files.save(path, weights)
    data, refused = path.read_bytes(), 0
    for at in range(len(data)):
        flipped = data[:at] + bytes([data[at] ^ 1]) + data[at + 1:]
        monkeypatch.setattr(disk, "read_bytes", lambda _: flipped)     # disks are slow
        try:
            back = files.load(path)
        except FileError:
            refused += 1
        else:                           # a date, a version, an attribute: nothing that counts
            for (_, actual), (_, desired) in zip(back.items(), weights.items(), strict=True):
                assert actual.tobytes() == desired.tobytes()
    assert refused > 0.8 * len(data)


@pytest.mark.parametrize("arrays", [
    {"a": np.zeros(2**20)}, {"a": np.zeros(2**22, bool)}, {"a": np.zeros(2**20, ">f4")},
    {f"{n:03}": np.zeros(1, np.uint8) for n in range(1000)},
    {f"{n}": np.zeros(2**14) for n in range(40)}, {"a": np.zeros(2**20, "f2")}])
def test_reading_needs_twice_the_size_of_the_file_and_four_times_to_widen(tmp_path, arrays):
    path = tmp_path / "file.npz"
    np.savez(path, **arrays)
    files.read_arrays(path)
    tracemalloc.start()
    files.read_arrays(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    times = 4 if "a" in arrays and arrays["a"].dtype == np.float16 else 2
    assert peak <= times * path.stat().st_size + 2**20


def test_only_file_error_escapes(monkeypatch):
    """Mutated members under right checksums, and mutated containers; every refusal is met."""
    rng, met, taken = random.Random(0), set(), 0
    weights = random_weights(np.random.default_rng(0), n_layers=1, n_heads=1, d_head=2)
    members = {name: npy(array) for name, array in files.weights_to_arrays(weights).items()}
    for name, old, new in (("W_E", "<f8", "float64"), ("W_Q", ", 5)", ", 5L)")):
        members[name] = npy(getattr(weights, name), old, new)
    whole = npz(io.BytesIO(), **members).getvalue()
    monkeypatch.setattr(disk, "read_bytes", lambda path: data)
    for _ in range(4000):
        name = rng.choice([None, *members])
        if name is None:
            data = mutated(rng, whole)
        else:
            data = npz(io.BytesIO(), **{**members, name: mutated(rng, members[name])}).getvalue()
        try:
            files.load("weights.npz")
            taken += 1
        except FileError as error:
            assert len(str(error).splitlines()) == 1
            met.update(refusal for refusal in REFUSALS if refusal in str(error))
    assert met == set(REFUSALS)
    assert 200 < taken < 2000


REFUSALS = ["another kind of file", "bytes after its end", "a part of one", "a member named",
            "compressed", "out of place", "damaged", "the header", "bytes for", "must be finite",
            "positions must be one of"]


def mutated(rng, data):
    """One to three mistakes: bits, bytes, numbers, pieces cut out, doubled or cut off."""
    data = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        near = rng.choice((rng.randrange(len(data)), rng.randrange(min(len(data), 130))))
        start, length = near, rng.choice((1, 1, 2, 4, 8, 30))
        kind = rng.randrange(6)
        if kind == 0:
            data[start] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[start:start + length] = rng.randbytes(length)
        elif kind == 2:
            data[start:start + length] = rng.choice((b"\0", b"\xff", b"9", b"(")) * length
        elif kind == 3:
            del data[max(start, 1):start + length]
        elif kind == 4:
            data[start:start] = data[start:start + length]
        else:
            del data[max(start, 1):]
    return bytes(data)


# Weights

def altered(**changes):
    """The arrays of sound weights, with changes; None leaves an array out."""
    weights = random_weights(np.random.default_rng(0))
    arrays = {**files.weights_to_arrays(weights), **changes}
    return {name: array for name, array in arrays.items() if array is not None}


@pytest.mark.parametrize("changes, message", [
    ({"W_E": np.full((5, 7), np.nan)}, "must hold weights: W_E must be finite; got 35 NaN or Inf"),
    ({"W_E": None}, "must hold weights; got no W_E"),
    ({"W_pos": None}, "must hold weights; got no W_pos"),
    ({"positions": None}, "positions must be one of .*; got ''"),
    ({"positions": np.frombuffer(b"none", np.uint8)}, "W_pos must be None exactly when"),
    ({"positions": np.zeros(1000)}, "positions must be one of"),
    ({"extra": np.zeros(1)}, "must hold weights or a model; got also extra"),
    ({"W_E": np.zeros((5, 7), np.float32)}, "weights must share one dtype"),
    ({"W_E": np.zeros((5, 7), np.int64)}, "weights must share one dtype"),
    ({"W_U": np.zeros((8, 5))}, "W_U must have axes")])
def test_weights_that_are_none(tmp_path, changes, message):
    files.write_arrays(tmp_path / "weights.npz", altered(**changes))
    assert is_refused(tmp_path / "weights.npz", message, files.load)


# Outputs are whole

def writers(path, force=False):
    """Every writer, as a call without arguments."""
    return [lambda: files.write_bytes(path, b"new", force),
            lambda: files.write_arrays(path, {"a": np.zeros(3)}, force),
            lambda: files.write_json(path, [1], force),
            lambda: files.save(path, random_weights(np.random.default_rng(0)), force)]


@pytest.mark.parametrize("n", range(4))
def test_a_file_that_exists_is_refused_unless_forced(tmp_path, n):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(FileError, match="cannot write .*file': it exists already"):
        writers(path)[n]()
    assert path.read_bytes() == b"old"
    writers(path, force=True)[n]()
    assert path.read_bytes() != b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
                                   KeyboardInterrupt()])
@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("n", range(4))
def test_after_a_failure_all_is_as_before(tmp_path, monkeypatch, error, step, n):
    def fail(*_):
        raise error

    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(b"old")
    monkeypatch.setattr(os, step, fail)
    for path, force in ((old, True), (new, False)):
        with pytest.raises((FileError, KeyboardInterrupt), match="no space left|^$"):
            writers(path, force)[n]()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"old": b"old"}


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path, monkeypatch):
    path, fsync = tmp_path / "file", os.fsync

    def appear(descriptor):
        fsync(descriptor)
        path.write_bytes(b"other")

    monkeypatch.setattr(os, "fsync", appear)
    with pytest.raises(FileError, match="file exists"):
        files.write_bytes(path, b"ours")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"file": b"other"}


def test_an_output_is_a_link_s_target_and_has_ordinary_permissions(tmp_path):
    target, link, plain = tmp_path / "target", tmp_path / "link", tmp_path / "plain"
    link.symlink_to("target")
    plain.write_bytes(b"")
    files.write_bytes(link, b"one")                 # the target did not exist yet
    files.write_bytes(link, b"two", force=True)
    assert link.is_symlink() and target.read_bytes() == b"two"
    assert target.stat().st_mode == plain.stat().st_mode
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("name, message", [
    ("missing/file", "no such folder"), ("folder", "not a regular file"),
    ("file/file", "not a directory"), ("pipe", "not a regular file"), ("loop", "symbolic links"),
    ("a" * 300, "name too long"), ("nul\0", "null"), ("\ud800", "surrogates not allowed")])
def test_bad_outputs_are_refused_before_the_work(tmp_path, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    path = f"{tmp_path}/{name}"
    for force in (False, True):
        with pytest.raises(FileError, match=f"cannot write .*: .*{message}") as caught:
            files.check_output(path, force)
        assert len(str(caught.value).splitlines()) == 1
        with pytest.raises(FileError, match=message):
            files.write_bytes(path, b"", force)
    if name != "missing/file":
        assert is_refused(path, f"cannot read .*: .*{message}", files.read_bytes)
    assert len(list(tmp_path.iterdir())) == 4


def test_an_unwritable_folder_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)         # root may write anywhere
    with pytest.raises(FileError, match="its folder does not allow it"):
        files.check_output(tmp_path / "file")


def test_paths_are_named_as_they_were_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_refused("a\nb.npz", r"cannot read 'a\\nb.npz': no such file", files.load)
    assert issubclass(FileError, InputError)
    files.check_output("new")
    files.write_bytes("new", b"x")
    assert files.read_bytes("new") == b"x"


# JSON

@settings(deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text()
                    | st.floats(allow_nan=False, allow_infinity=False),
                    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
                    max_leaves=8))
def test_json_comes_back(value):
    assert files.parse_json(files.format_json(value, "x"), "x") == value


@pytest.mark.parametrize("data", [
    b"", b"{", b"[1,]", b"{'a': 1}", b"1 2", b"NaN", b"[Infinity]", b"-Infinity", b"1e999",
    b'{"a": 1, "a": 1}', b'[{"b": {"a": 1, "a": 2}}]', b'"\xff"', b'"\\ud800"', b'"\n"',
    b"\xef\xbb\xbf1", "1".encode("utf-16"), b"[" * 10**6, b'{"a":' * 10**5, b"9" * 10**5])
def test_json_that_is_refused(tmp_path, data):
    (tmp_path / "file.json").write_bytes(data)
    assert is_refused(tmp_path / "file.json", "file.json' must be strict JSON in UTF-8; got",
                      files.read_json)


def test_json_has_a_largest_size(tmp_path, monkeypatch):
    (tmp_path / "file.json").write_bytes(b"[1, 2]")
    assert files.read_json(tmp_path / "file.json") == [1, 2]
    monkeypatch.setattr(strict_json, "MAX_JSON", 5)
    assert is_refused(tmp_path / "file.json", "at most 5 bytes expected, got 6", files.read_json)
    with pytest.raises(FileError, match="6 bytes, more than 5"):
        files.parse_json(b"[1, 2]", "x")
    with pytest.raises(FileError, match="more than 5"):
        files.format_json([12345], "x")


@pytest.mark.parametrize("value", [np.nan, [np.inf], {1: 2, "1": 3}, "\ud800", {1, 2}, b"",
                                   np.arange(3), {(1, 2): 3}])
def test_values_that_are_no_json_are_not_written(tmp_path, value):
    with pytest.raises(FileError, match="JSON"):
        files.write_json(tmp_path / "file.json", value)
    nested = value = []
    for _ in range(10**5):
        nested.append([])
        nested = nested[0]
    with pytest.raises(FileError, match="JSON"):
        files.write_json(tmp_path / "file.json", value)
    assert not list(tmp_path.iterdir())


def test_only_file_error_escapes_json():
    rng, taken = random.Random(0), 0
    whole = files.format_json({"seed": 1, "loss": [2.5e-3, None, True], "é\n": {"x": ""}}, "x")
    for _ in range(5000):
        try:
            files.parse_json(mutated(rng, whole), "x")
            taken += 1
        except FileError as error:
            assert len(str(error).splitlines()) == 1
    assert 100 < taken < 2500


def test_json_of_very_many_values_is_refused():
    with pytest.raises(FileError, match="more than 2097152 values"):
        files.parse_json(b"[" + b"[]," * 1_100_000 + b"[]]", "x")
    with pytest.raises(FileError, match="strict JSON"):
        files.parse_json(rb'"\udc80"', "x")                      # no text


def test_who_may_read_a_file_stays_so(tmp_path):
    path = tmp_path / "mine.json"
    path.touch(mode=0o600)
    files.write_json(path, 1, force=True)
    assert path.stat().st_mode & 0o777 == 0o600 and files.read_json(path) == 1


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="not Linux")
def test_a_file_without_a_size_is_empty():
    """Others of its kind, such as /proc/kmsg, never end."""
    assert files.read_bytes("/proc/self/status") == b""


def test_folders_are_checked_before_and_made(tmp_path):
    new, there = tmp_path / "new", tmp_path / "there"
    there.mkdir()
    files.check_folder(new, ["a", "b"])
    files.check_folder(there, ["a", "b"])
    (there / "b").write_bytes(b"precious")
    (tmp_path / "file").write_bytes(b"precious")
    for path in (there, tmp_path / "file", tmp_path / "no" / "new"):
        with pytest.raises(FileError, match="cannot write"):
            files.check_folder(path, ["a", "b"])
    files.check_folder(there, ["a", "b"], force=True)
    files.make_folder(new)
    files.make_folder(new)
    assert new.is_dir()
    with pytest.raises(FileError, match="cannot write"):
        files.make_folder(tmp_path / "file" / "new")
