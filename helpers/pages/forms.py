"""A model's inputs as fields of a form; what was typed as the instance that an endpoint takes."""

import json
import math
import re

from helpers.cloud import storage
from helpers.errors import CloudError, DataError, SchemaError
from helpers.pages import models
from helpers.pages.views import Session, short

LEVELS = 200  # a longer list of levels is a text to type
NUMBER = re.compile(r"[+-]?([1-9]\d{0,2}(,\d{3})+|\d*)(\.\d*)?([eE][+-]?\d+)?")
GRAPH_BYTES = 64_000_000  # of a saved_model.pb that is read for its signature
ANYTHING = {"name": "instance", "wire": "", "kind": "json", "levels": [], "nullable": False,
            "gap": None, "note": "one instance, as JSON", "bare": True}  # fmt: skip


def inputs(session: Session, artifact: str, schema: dict) -> list[dict]:
    """What a model takes: `name wire kind levels nullable gap note bare` an input.

    A table's schema says most; else the SavedModel's own signature; else one box of JSON. `wire`
    is the name that travels, `bare` a lone input whose name the row form leaves out.
    """
    if models.properties(schema):
        seen = {row["name"]: row["seen"] for row in models.inputs(schema)}
        return [_column(name, about, schema, seen[name])
                for name, about in models.properties(schema).items()]  # fmt: skip
    from helpers.inputs import signature  # brings protobuf, which other pages do without

    try:
        graph = storage.read_part(session, f"{artifact}1/saved_model.pb", 0, GRAPH_BYTES)
        served = signature.read(graph).signatures[signature.DEFAULT]
    except (CloudError, DataError, KeyError):
        return [ANYTHING]
    bare = len(served.inputs) == 1
    return [ANYTHING | {"name": name, "wire": name, "kind": _kind(name, tensor), "bare": bare,
                        "note": str(tensor)} for name, tensor in served.inputs.items()]  # fmt: skip


def _column(name: str, about: dict, schema: dict, seen: str) -> dict:
    kind = "number" if about.get("type") in ("number", "integer") else "text"
    levels = [str(level) for level in about.get("enum", [])][:LEVELS]
    if kind == "text" and levels:
        kind = "choice"
    gap = schema.get("x-missing", {}).get("number" if kind == "number" else "string", "")
    return {"name": name, "wire": about.get("x-input", name), "kind": kind, "levels": levels,
            "nullable": bool(about.get("nullable")), "gap": gap, "note": seen,
            "bare": False}  # fmt: skip


def _kind(name: str, tensor) -> str:
    if tensor.shape is None or len(tensor.shape) != 1:
        return "json"
    if tensor.dtype == "string":
        return "image" if name.endswith("_bytes") else "text"
    return "json" if tensor.dtype == "bool" else "number"


def only_example(schema: dict, known: list[dict]) -> list[dict]:
    """The example of a schema, where no held-out rows came along."""
    example = schema.get("example")
    if example is None:
        return []
    wire = {
        one["wire"]: one["gap"] if example.get(one["name"]) is None else example[one["name"]]
        for one in known
    }
    return [{"instance": wire, "truth": None}]


def fields(known: list[dict], instance, typed: dict | None = None) -> list[dict]:
    """The inputs with what stands in each field."""
    made = []
    for one in known:
        lone = one["bare"] or not isinstance(instance, dict)
        value = instance if lone else instance.get(one["wire"], "")
        if typed is not None:
            shown = typed.get(f"in-{one['name']}", "")
        elif one["nullable"] and value == one["gap"]:
            shown = ""
        elif isinstance(value, dict) and set(value) == {"b64"}:
            shown = value["b64"]
        else:
            plain = isinstance(value, str) and one["kind"] != "json"
            shown = value if plain else json.dumps(value) if value != {} else ""
        made.append(one | {"value": shown})
    return made


def filled(known: list[dict], form: dict):
    """The instance that a sent form means.

    Raises:
        SchemaError: names the field and what was expected.
    """
    values = {one["wire"]: _value(one, form.get(f"in-{one['name']}", "").strip()) for one in known}
    return next(iter(values.values())) if known[0]["bare"] else values


def _value(one: dict, text: str):
    name, kind = one["name"], one["kind"]
    if not text and one["nullable"]:
        return one["gap"]
    if not text and kind != "text":
        raise SchemaError(
            f'Input "{name}" is empty; the model was trained on data without gaps there.'
        )
    try:
        if kind == "json":
            return json.loads(text, parse_int=_number, parse_float=_number, parse_constant=_number)
        if kind == "number":
            return _number(text)
    except json.JSONDecodeError as error:
        raise SchemaError(f'Input "{name}" is not JSON: {error}.') from error
    except (ValueError, RecursionError) as error:
        expected = "a number" if kind == "number" else "JSON with finite numbers"
        raise SchemaError(f'Input "{name}" holds "{short(text)}"; expected {expected}.') from error
    return {"b64": text} if kind == "image" else text


def _number(text: str) -> int | float:
    """A finite number; commas may group thousands, as any other could be a decimal one."""
    plain = text.replace(",", "")
    if not NUMBER.fullmatch(text) or not math.isfinite(float(plain)):
        raise ValueError(text)
    return int(plain) if plain.lstrip("+-").isdecimal() else float(plain)


def row(known: list[dict], instance: dict) -> dict:
    """An instance by the table's columns, as `helpers.predict` takes it."""
    return {
        one["name"]: None if one["nullable"] and instance.get(one["wire"]) == one["gap"]
        else instance.get(one["wire"])
        for one in known
    }  # fmt: skip
