"""JSON that can be read in one way only: no key twice, no NaN, nothing beyond float64."""

import json
import math

from minicircuits.files import disk

MAX_JSON = 2**24           # bytes
MAX_PARTS = 2**21          # commas and brackets: each may take a hundred bytes of memory


def read_json(path):
    """The value in a JSON file; see `parse_json`."""
    return parse_json(disk.read_bytes(path, MAX_JSON), path)


def parse_json(data, name):
    """The value of the JSON bytes `data`, strictly, or FileError, which calls them `name`.

    Refuses repeated keys, NaN, 1e999, what is not UTF-8, and more than MAX_JSON bytes.
    """
    try:
        if len(data) > MAX_JSON:
            raise ValueError(f"{len(data)} bytes, more than {MAX_JSON}")
        if sum(map(bytes(data).count, (b",", b"[", b"{"))) > MAX_PARTS:
            raise ValueError(f"more than {MAX_PARTS} values")
        value = json.loads(bytes(data).decode(), object_pairs_hook=_without_repeats,
                           parse_float=_finite, parse_constant=_finite)
        if b"\\u" in bytes(data):
            json.dumps(value, ensure_ascii=False).encode()      # lone surrogates are no text
        return value
    except (ValueError, RecursionError) as error:
        raise disk.FileError(f"{str(name)!r} must be strict JSON in UTF-8; got {error}") from None


def _without_repeats(pairs):
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a repeated key")
    return value


def _finite(text):
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text[:20]}")
    return value


def format_json(value, name):
    """`value` as JSON bytes that `parse_json` takes, or FileError, which calls them `name`."""
    try:
        data = json.dumps(value, ensure_ascii=False, indent=1).encode() + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise disk.FileError(f"{str(name)!r} can hold JSON values; got {error}") from None
    parse_json(data, name)
    return data


def write_json(path, value, force=False):
    """Write `value` as a JSON file, whole or not at all; see `check_output`."""
    disk.write_bytes(path, format_json(value, path), force)
