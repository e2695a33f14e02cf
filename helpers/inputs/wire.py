"""What travels between a client and a model: names, bytes, and rows packed as bytes; both ends.

JSON is the wall in bulk. A model whose inputs are all numbers of a fixed shape therefore has a
second signature, `packed_…`: one input `rows`, a string of bytes that holds row after row, each its
inputs in order, little-endian. Of a table with texts it has a second input `words`: the texts that
occur, and a row holds their places in it. It answers numbers as serialized tensors, named
`…_bytes` because TensorFlow Serving writes what is named so in base64. The other end is
`helpers.learning.export`.
"""

import json
import keyword
import re
import zlib
from collections.abc import Iterable

import numpy as np
import pybase64

from helpers.inputs.signature import DEFAULT, DTYPES, Signature, Tensor, message, shape_of

ROWS, WORDS = "rows", "words"  # the packed signature's inputs
PLAIN = {str, int, float, bool, type(None)}  # what JSON takes as it is
WHOLE = 2**53  # up to here float64 holds every whole number
PACKABLE = re.compile(r"u?int(8|16)|int(32|64)|float(16|32|64)")  # what decode_raw can take


def input_names(columns: Iterable[str]) -> dict[str, str]:
    """Names that TensorFlow takes for any columns: most keep theirs.

    TensorFlow makes inputs arguments of a Python function, and does not tell `a_b` from `A_B`.

    Returns:
        column -> a name, ASCII and short; names differ in more than their case.
    """
    columns, names, taken = list(columns), {}, set()

    def usable(name: str) -> bool:
        fits = re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,99}", name) and not keyword.iskeyword(name)
        return bool(fits) and name != "self" and name.lower() not in taken

    for column in columns:  # first those that may stay as they are
        if usable(column):
            names[column] = column
            taken.add(column.lower())
    for column in columns:
        if column not in names:
            plain = re.sub(r"\W+", "_", column, flags=re.ASCII).strip("_")[:60]
            plain, number = plain if plain[:1].isalpha() else f"column_{plain}".rstrip("_"), 2
            name = plain if usable(plain) else f"{plain}_{number}"
            while not usable(name):
                number += 1
                name = f"{plain}_{number}"
            names[column] = name
            taken.add(name.lower())
    return {column: names[column] for column in columns}


def packed_name(signature: Signature) -> str:
    """The name of the signature that takes these inputs packed, or "" where they can't be.

    It depends on names, types and shapes: a client that knows another version's is refused, where
    bytes alone would be misread.
    """
    tensors = signature.inputs.values()
    if not all(_fixed(about) and PACKABLE.fullmatch(about.dtype) for about in tensors):
        return ""
    if len(set(_packed(signature.outputs))) < len(signature.outputs):
        return ""
    return f"packed_{zlib.crc32(repr(signature).encode()):08x}"


def record_dtype(inputs: dict[str, Tensor]) -> str:
    """What a row consists of: numbers of the one type that all inputs have, else bytes."""
    kinds = {about.dtype for about in inputs.values()}
    return kinds.pop() if len(kinds) == 1 else "uint8"


def pack(arrays: Iterable[np.ndarray]) -> bytes:
    """Inputs (n, …) of the signature's types, in its order, as `rows`."""
    arrays = [array.astype(array.dtype.newbyteorder("<"), copy=False) for array in arrays]
    if len(arrays) == 1:
        return arrays[0].tobytes()
    if len({array.dtype for array in arrays}) > 1:
        arrays = [np.ascontiguousarray(a).reshape(len(a), -1).view("u1") for a in arrays]
    return np.column_stack([array.reshape(len(array), -1) for array in arrays]).tobytes()


def coded(columns: dict[str, np.ndarray]) -> tuple[list[np.ndarray], list[str] | None]:
    """Columns of texts as places in the list of all texts, and that list: each travels once."""
    places, coded = {}, []
    for values in columns.values():
        if values.dtype == object:  # not by pandas, for which a text ends at its first NUL
            for text in dict.fromkeys(values):
                places.setdefault(text, len(places))
            values = np.fromiter(map(places.__getitem__, values), "int64", len(values))
        coded.append(values)
    return coded, [*places] or None


def packed_body(name: str, block: bytes, words: list[str] | None = None) -> bytes:
    """A request to the signature `name`; `words` if it takes them."""
    head = json.dumps({"signature_name": name})[:-1].encode()
    tail = b"" if words is None else b',"words":' + json.dumps(words).encode()
    return head + b',"inputs":{"rows":[{"b64":"' + pybase64.b64encode(block) + b'"}]' + tail + b"}}"


def json_body(columns: dict, signature_name: str = DEFAULT) -> bytes:
    """A request in TensorFlow Serving's column form, which any signature takes."""
    request = {} if signature_name == DEFAULT else {"signature_name": signature_name}
    request["inputs"] = {name: plain(values) for name, values in columns.items()}
    return json.dumps(request, separators=(",", ":")).encode()


def plain(value):
    """A value as JSON takes it; bytes as {"b64": …}."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return value.tolist() if value.dtype.kind != "V" else value.astype("float32").tolist()
    if isinstance(value, bytes):
        return {"b64": pybase64.b64encode(value).decode()}
    if isinstance(value, np.ndarray | list | tuple):
        found = value.tolist() if isinstance(value, np.ndarray) else value
        if set(map(type, found)) <= PLAIN:  # as long columns are, where one call a value is slow
            return list(found)
        return [plain(one) for one in found]
    if isinstance(value, dict):
        return {name: plain(one) for name, one in value.items()}
    return value.item() if isinstance(value, np.generic) else value


def unplain(value):
    """The opposite of `plain`, but for arrays: lists stay lists."""
    if isinstance(value, dict):
        if set(value) == {"b64"}:
            return pybase64.b64decode(value["b64"])
        return {name: unplain(one) for name, one in value.items()}
    return [unplain(one) for one in value] if isinstance(value, list) else value


def outputs(answer, wanted: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The `outputs` of an answer in column form, each of its own type, by the signature's names."""
    named = _named(answer, [*wanted])
    return {name: array(value, wanted[name].dtype) for name, value in named.items()}


def unpacked(answer, wanted: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """The same of a packed signature, which answers `wanted`'s numbers as bytes."""
    sent = _packed(wanted)
    named = _named(answer, [*sent])
    return {
        name: array(named[key]) if wanted[name].dtype == "string" else _tensor(named[key])
        for key, name in sent.items()
    }


def array(values, dtype: str = "") -> np.ndarray:
    """JSON's lists as an array: numbers, or objects that are texts or bytes.

    Args:
        dtype: of the numbers; by default what holds them all, whole ones exactly.
    """
    first = values
    while isinstance(first, list) and first:
        first = first[0]
    if isinstance(first, str | dict):
        return np.array(unplain(values), object)
    if dtype and dtype != "bfloat16":  # of which NumPy knows nothing
        return np.array(values, dtype)
    found = np.array(values)
    if found.dtype.kind == "f" and (np.abs(found) >= WHOLE).any():
        objects = np.array(values, object)
        if any(type(one) is int and abs(one) > WHOLE for one in objects.flat):
            return objects
    return found


def _fixed(about: Tensor) -> bool:
    shape = about.shape
    return bool(shape) and shape[0] is None and None not in shape[1:]


def _named(answer, names: list[str]) -> dict:
    """Of one output alone the server gives no name."""
    return answer if isinstance(answer, dict) and set(answer) == set(names) else {names[0]: answer}


def _packed(wanted: dict[str, Tensor]) -> dict[str, str]:
    """The packed signature's names of outputs -> their own."""
    return {n if about.dtype == "string" else f"{n}_bytes": n for n, about in wanted.items()}


def _tensor(value) -> np.ndarray:
    tensor = message("Tensor", array(value)[0])
    kind, shape = DTYPES[tensor.dtype], shape_of(tensor.shape)
    if kind == "bfloat16":  # the upper half of a float32; NumPy has no such type
        halves = np.frombuffer(tensor.content, "<u2").astype("uint32")
        return (halves << 16).view("float32").reshape(shape)
    return np.frombuffer(tensor.content, np.dtype(kind).newbyteorder("<")).reshape(shape)
