"""What a page can hold: arrays as short numbers, and JSON that no token of a stranger can end."""

import base64
import json
from math import prod

import numpy as np

from minicircuits.notation import InputError


def pack_floats(array):
    """An array as JSON: little-endian float32 in base64, for what is added up before it shows."""
    with np.errstate(over="ignore"):
        array = np.asarray(array, "<f4")
    if not np.isfinite(array).all():
        raise InputError("a page holds float32; got larger numbers: give the model smaller weights")
    return {"shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode()}


def pack(array):
    """An array as JSON: integers n in base64, row r of its first axis being n · scale[r].

    Little-endian 16-bit. An entry is off by at most max|row| / 65,534: four digits of the
    largest, three of what is a tenth of it.
    """
    array = np.asarray(array, np.float64)
    rows = array.reshape(len(array), prod(array.shape[1:]))
    scale = np.abs(rows).max(1, initial=0) / 32767          # the largest of 16 bits
    integers = np.rint(rows / np.where(scale == 0, 1, scale)[:, None]).astype("<i2")
    return {"shape": list(array.shape), "scale": scale.tolist(),
            "data": base64.b64encode(integers.tobytes()).decode()}


def json_in_html(value):
    """`value` as JSON that may stand in a <script>: ASCII, without <, > and &."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(character): f"\\u{ord(character):04x}" for character in "<>&"})
