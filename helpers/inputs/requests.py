"""Values as the requests that score them, and the answers in the form of the values.

A table's frame is checked against its schema and comes back as a frame; anything else is checked
against the model's signature and comes back as an array, or a dict of them.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from helpers.errors import SchemaError, near
from helpers.inputs import table_columns, wire
from helpers.inputs import values as arrays
from helpers.inputs.answers import answer_frame
from helpers.inputs.signature import DEFAULT, Signature, Tensor

ANSWERS = {"answers": Tensor("float32", None)}  # of a table's packed signature


@dataclass(frozen=True)
class Request:
    """`rows` rows, to be sent `step` or a multiple at once; `body` and `read` are of a part.

    `columns` has them by input, as the endpoint names them; `gather` turns predictions in the
    row form, one a row, into what `join` makes of parts.
    """

    rows: int
    columns: dict[str, np.ndarray]
    body: Callable[[int, int], bytes]
    read: Callable[[Any, int, int], Any]
    join: Callable[[list], Any]
    gather: Callable[[list], Any]
    step: int = 1


def request(model, values, signature: str = "") -> Request:
    """What to send for these values.

    Args:
        model: has `instance_schema`, `prediction_schema` and `signatures`.
        signature: its name; "" takes a table's own way, or `serving_default`.
    Raises:
        SchemaError: the values do not fit; the message says what was found and expected.
    """
    if isinstance(values, pd.DataFrame) and not signature and is_table(model.instance_schema):
        return _of_table(model.instance_schema, model.prediction_schema, values)
    name = signature or DEFAULT
    if name not in model.signatures:
        known = [known for known in model.signatures if not known.startswith("packed_")]
        raise SchemaError(f'The model has no signature "{name}".{near(name, known)}')
    packed = wire.packed_name(model.signatures[name]) if name == DEFAULT else ""
    return _of_values(
        model.signatures[name], name, packed if packed in model.signatures else "", values
    )


def is_table(schema: dict) -> bool:
    """Whether a schema describes columns of numbers and texts."""
    kinds = {about.get("type") for about in schema.get("properties", {}).values()}
    return bool(kinds) and kinds <= {"number", "string"} and "x-missing" in schema


def wire_names(schema: dict) -> dict[str, str]:
    """column -> the name the endpoint knows it by."""
    return {
        name: about.get("x-input", name) for name, about in schema.get("properties", {}).items()
    }


def _of_table(schema: dict, answer: dict, frame: pd.DataFrame) -> Request:
    names = wire_names(schema)
    columns = {names[name]: column for name, column in table_columns.check(schema, frame).items()}
    target, packed = answer["title"], schema.get("x-packed", "")
    about = answer.get("properties", {})
    classes = about.get(target, {}).get("enum", [])

    def body(start: int, stop: int) -> bytes:
        part = {name: values[start:stop] for name, values in columns.items()}
        if not packed:
            return wire.json_body(part)
        numbers, words = wire.coded(part)
        block = np.empty((stop - start, len(numbers)), "<f4")
        for place, values in enumerate(numbers):
            block[:, place] = values
        return wire.packed_body(packed, wire.pack([block]), words)

    def read(outputs, start: int, stop: int) -> pd.DataFrame:
        index = frame.index[start:stop]
        if packed:
            found = wire.unpacked(outputs, ANSWERS)["answers"].astype("float64")
            return answer_frame(target, classes, found, index)
        if not about:
            return answer_frame(target, (), np.asarray(outputs, "float64"), index)
        named = {n: np.asarray(v).reshape(len(index)) for n, v in outputs.items()}
        return pd.DataFrame(named, index=index)[list(about)]

    def gather(predictions: list) -> pd.DataFrame:
        return table_of_rows(answer, predictions, frame.index)

    return Request(len(frame), columns, body, read, pd.concat, gather)


def table_of_rows(schema: dict, predictions: list, index: pd.Index) -> pd.DataFrame:
    """A table's answers in the row form as a frame."""
    about = schema.get("properties", {})
    names = list(about) or [schema["title"]]
    columns = {n: [one[n] if isinstance(one, dict) else one for one in predictions] for n in names}
    frame = pd.DataFrame({n: np.asarray(v).reshape(len(v)) for n, v in columns.items()})
    numbers = [n for n in names if about.get(n, schema)["type"] == "number"]
    return frame.set_index(index).astype(dict.fromkeys(numbers, "float64"))


def _of_values(signature: Signature, name: str, packed: str, values) -> Request:
    columns = arrays.fit(values, signature)
    counts = [len(column) for column in columns.values() if column.ndim]
    rows = counts[0] if counts else 1
    fixed = [t.shape[0] for t in signature.inputs.values() if t.shape and t.shape[0]]
    step = fixed[0] if fixed else 1
    if rows % step:
        raise SchemaError(f"{rows} rows; the model takes exactly {step} at once. Give as many.")
    outputs = wire.unpacked if packed else wire.outputs

    def body(start: int, stop: int) -> bytes:
        part = {n: column[start:stop] if column.ndim else column for n, column in columns.items()}
        if packed:
            return wire.packed_body(packed, wire.pack(part.values()))
        return wire.json_body(part, name)

    def read(answer, start: int, stop: int) -> dict[str, np.ndarray]:
        found = outputs(answer, signature.outputs)
        loose = [n for n, a in found.items() if not a.ndim or len(a) != stop - start]
        if loose and (start, stop) != (0, rows):
            raise SchemaError(
                f'The output "{loose[0]}" is not one a row, so rows can\'t go in parts. Send at '
                f"most {stop - start} at once."
            )
        return found

    def join(parts: list[dict]):
        whole = parts[0]
        if len(parts) > 1:
            whole = {n: np.concatenate([part[n] for part in parts]) for n in parts[0]}
        return next(iter(whole.values())) if len(whole) == 1 else whole

    def gather(predictions: list):
        names = list(signature.outputs)
        named = (
            {names[0]: predictions}
            if len(names) == 1
            else {n: [one[n] for one in predictions] for n in names}
        )
        return join([wire.outputs(named, signature.outputs)])

    return Request(rows, columns, body, read, join, gather, step)


def lines(columns: dict[str, np.ndarray], key: str, numbers: Iterable[int]) -> Iterator[str]:
    """Rows as objects with their number under `key`, a line each."""
    names = [json.dumps(name).replace("%", "%%") for name in [*columns, key]]
    line = "{" + ", ".join(f"{name}: %s" for name in names) + "}\n"
    texts = []
    for values in columns.values():
        plain = wire.plain(values)
        if values.ndim == 1 and not (plain and isinstance(plain[0], dict)):
            # a column at once is far faster than a row at once; no JSON text holds a line break
            texts.append(json.dumps(plain, separators=("\n", ":"))[1:-1].split("\n"))
        else:
            texts.append(map(json.dumps, plain))
    for row in zip(*texts, numbers, strict=False):
        yield line % row


def halves(request: Request, start: int, stop: int) -> int:
    """Where a part that is too long is cut in two."""
    return start + max(1, (stop - start) // request.step // 2) * request.step


def instances(given) -> list:
    """Instances of the row form as JSON takes them: one, a list of them, or an array."""
    rows = wire.plain(given)
    return rows if isinstance(rows, list) else [rows]


def is_renamed(rows: list) -> bool:
    """Whether a name is one that an endpoint can't know by itself."""
    first = rows[0] if rows and isinstance(rows[0], dict) else {}
    return any(name != sent for name, sent in wire.input_names(first).items())


def renamed(rows: list, schema: dict) -> list:
    """Instances with a table's columns under the names that the endpoint knows."""
    names = wire_names(schema)
    return [{names.get(name, name): value for name, value in row.items()} for row in rows]


def instances_body(rows: list) -> bytes:
    """A request in TensorFlow Serving's row form."""
    return json.dumps({"instances": rows}).encode()
