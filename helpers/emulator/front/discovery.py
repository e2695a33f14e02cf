"""Routes and request checks from Google's own discovery documents (google-api-python-client's)."""

import base64
import binascii
import functools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import googleapiclient
import orjson

from helpers.emulator.front.calls import HANDLERS, ApiError, camel
from helpers.emulator.front.filters import filter_fields, order_fields
from helpers.emulator.front.honoured_fields import ASSIGNED, is_output, short
from helpers.emulator.front.rules import ENUM_NUMBERS

DOCUMENTS = {
    "v1": ["aiplatform.v1", "artifactregistry.v1", "cloudbuild.v1", "iam.v1", "serviceusage.v1",
           "cloudbilling.v1", "billingbudgets.v1"],
    "v2": ["logging.v2"],
    "v3": ["cloudresourcemanager.v3", "monitoring.v3"],
    "storage": ["storage.v1"],
    "v1beta1": ["aiplatform.v1beta1", "serviceusage.v1beta1"],
}  # fmt: skip
FORMATS = {
    "google-duration": re.compile(r"-?\d{1,12}(\.\d{1,9})?s"),
    "google-datetime": re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"),
    "google-fieldmask": re.compile(r"[\w.*,]*"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "date-time": re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)"),
}
RANGES = {"int32": 2**31, "int64": 2**63, "uint32": 2**32, "uint64": 2**64}
CLEARING = {"storage.buckets.patch", "storage.objects.patch"}  # a null removes the field
COMMON_QUERY = {"$alt", "$prettyPrint", "projection", "userProject", "upload_id"}


@dataclass(frozen=True)
class Method:
    """One method of a discovery document."""

    id: str
    about: dict = field(repr=False)
    document: dict = field(repr=False)

    @functools.cached_property
    def pattern(self) -> re.Pattern:
        """Finds the path parameters in an undecoded path."""
        parts = re.split(r"({\+?\w+})", self.document["servicePath"] + self.about["path"])
        made = [
            re.escape(part) if not part.startswith("{")
            else f"(?P<{part.strip('{+}')}>{'.+' if part[1] == '+' else '[^/]+'})"
            for part in parts
        ]  # fmt: skip
        return re.compile("".join(made))


def find(verb: str, path: str) -> tuple[Method, dict[str, str]] | None:
    """The method that serves an undecoded path (no leading slash), and its path parameters."""
    head = path.partition("/")[0]
    if head == "ui":
        head, path = "v1", "v1" + path[2:]
    if head not in DOCUMENTS:
        return None
    segments = path.split("/")
    last, colon, custom = segments[-1].rpartition(":")
    candidates: list[Method] = []
    if colon:
        _walk(_tree(head), [*segments[:-1], last], (verb, custom), candidates)
    if not candidates:
        _walk(_tree(head), segments, (verb, ""), candidates)
    if not candidates:
        return None
    # Some paths belong to several services (operations, locations): the emulated one answers.
    chosen = next((m for m in candidates if handler(m.id)), candidates[0])
    match = chosen.pattern.fullmatch(path)
    if not match:
        return None
    try:
        values = match.groupdict()
        for name, raw in values.items():  # in a value of several parts a %2F is not a slash
            kept = raw.replace("%2F", "%252F") if f"{{+{name}}}" in chosen.about["path"] else raw
            values[name] = unquote(kept, errors="strict")
    except UnicodeDecodeError as error:
        raise ApiError(400, "The path is not UTF-8.") from error
    for name, value in values.items():
        wanted = chosen.about["parameters"][name].get("pattern", "")
        if (wanted and not re.search(wanted, value)) or "\x00" in value:
            raise ApiError(400, f"Invalid resource name: {value!r}; expected {wanted}.")
    return chosen, values


def handler(method_id: str):
    """The function that serves a method; operations of every service share theirs."""
    shared = re.search(r"operations\.(get|list|wait|cancel|delete)$", method_id)
    return HANDLERS.get(method_id) or (HANDLERS.get(shared[0]) if shared else None)


def methods(head: str) -> list[Method]:
    """Every method of the documents behind a first path segment."""
    return [method for document in _documents(head) for method in _methods(document)]


@functools.cache
def by_id(method_id: str) -> Method:
    """A method of a document whose paths begin with its service's name, as those of storage do."""
    return {method.id: method for method in methods(method_id.partition(".")[0])}[method_id]


def check_query(method: Method, raw: str) -> dict[str, Any]:
    """The query by name, typed.

    Raises:
        ApiError: an unknown name or a value of the wrong type.
    """
    if not raw:
        return {}
    known = {
        n: p for n, p in method.about.get("parameters", {}).items() if p["location"] == "query"
    }
    known |= method.document["parameters"]
    values: dict[str, Any] = {}
    raw = raw.replace("$alt=json;", "$alt=json%3B")
    try:
        pairs = parse_qsl(raw, keep_blank_values=True, errors="strict")
    except ValueError as error:
        raise ApiError(400, f"The query can't be read: {error}.") from error
    for name, text in pairs:
        about = known.get(name) or known.get(camel(name))
        if about is None:
            if name in COMMON_QUERY:
                values[name] = text
                continue
            raise _bad(
                name,
                f'Invalid JSON payload received. Unknown name "{name}": Cannot bind query '
                f"parameter. Field '{name}' could not be found in request message.",
            )
        problems: list[tuple[str, str]] = []
        single = {k: v for k, v in about.items() if k not in ("repeated", "location")}
        value = _value(single, _from_text(about, text), name, method, problems)
        if problems:
            raise _bad(*problems[0])
        key = name if name in known else camel(name)
        values[key] = [*values.get(key, []), value] if about.get("repeated") else value
    for name, used in (("filter", filter_fields), ("orderBy", order_fields)):
        # A list method says which fields it takes, as "* `display_name` supports …".
        taken = set(re.findall(r"\* `(\w+)`", known.get(name, {}).get("description", "")))
        odd = {_snake(field) for field in used(values.get(name, ""))} - taken
        if odd and taken and method.id.startswith("aiplatform."):
            listed = ", ".join(sorted(taken))
            raise _bad(name, f"Invalid {name}: {', '.join(sorted(odd))}; supported: {listed}.")
    return values


def check_body(method: Method, body: Any) -> dict:
    """The body as the service would store it: enum numbers named, int64 as text, output-only
    fields and nulls left out (but for `CLEARING`).

    Raises:
        ApiError: unknown fields, wrong types, missing required fields; all of them are listed.
    """
    if not isinstance(body, dict):
        raise ApiError(400, "Invalid JSON payload received. Root element must be a message.")
    if "request" not in method.about:
        if body:
            raise ApiError(400, f"Invalid JSON payload received. {method.id} takes no body.")
        return {}
    problems: list[tuple[str, str]] = []
    try:
        checked = _value(method.about["request"], body, "", method, problems)
    except RecursionError as error:
        raise ApiError(400, "Invalid JSON payload received. It is nested too deeply.") from error
    if not problems and method.about["httpMethod"] != "PATCH":
        missing: list[str] = []
        _required(method.about["request"], checked, "", method, missing)
        if missing:
            listed = "\t".join(
                f"{i}.Field: {name}; Message: Required field is not set."
                for i, name in enumerate(missing, 1)
            )
            raise _bad(missing[0], f"List of found errors:\t{listed}\t")
    if problems:
        field_name = problems[0][0]
        raise _bad(field_name, "\n".join(message for _, message in problems[:20]))
    return checked


def known(method: Method, answer: Any) -> Any:
    """The parts of an answer that this version of the API has words for: what was asked for by
    v1beta1 alone is not shown to v1, and the reverse."""
    return _known(method.about["response"], answer, method.document["schemas"])


def _known(schema: dict, value: Any, schemas: dict) -> Any:
    schema = schemas[schema["$ref"]] if "$ref" in schema else schema
    if isinstance(value, list) and "items" in schema:
        return [_known(schema["items"], item, schemas) for item in value]
    properties, free = schema.get("properties", {}), schema.get("additionalProperties")
    if not isinstance(value, dict) or not (properties or free):
        return value
    shown = {k: (properties.get(k) or free, v) for k, v in value.items() if free or k in properties}
    return {key: _known(about, inner, schemas) for key, (about, inner) in shown.items()}


def _value(schema: dict, value: Any, where: str, method: Method, problems: list) -> Any:
    """`value` checked against a schema and normalised."""
    if "$ref" in schema:
        schema = method.document["schemas"][schema["$ref"]]
    kind = schema.get("type", "any")
    if kind == "any":
        return value
    if kind == "object":
        if not isinstance(value, dict):
            return _wrong(where, "message", value, problems)
        return _object(schema, value, where, method, problems)
    if kind == "array":
        if not isinstance(value, list):
            return _wrong(where, "repeated field", value, problems)
        items = schema["items"]
        return [_value(items, v, f"{where}[{i}]", method, problems) for i, v in enumerate(value)]
    if kind == "boolean":
        return value if isinstance(value, bool) else _wrong(where, "TYPE_BOOL", value, problems)
    form = schema.get("format", "")
    if form in RANGES:
        return _integer(form, value, where, problems)
    if kind in ("number", "integer"):
        if isinstance(value, str) and value in ("NaN", "Infinity", "-Infinity"):
            return value
        ok = isinstance(value, int | float) and not isinstance(value, bool)
        return value if ok else _wrong(where, "TYPE_DOUBLE", value, problems)
    if "enum" in schema:
        return _enum(schema["enum"], value, where, problems)
    if not isinstance(value, str):
        return _wrong(where, "TYPE_STRING", value, problems)
    if form in FORMATS and not FORMATS[form].fullmatch(value):
        sort = f"type.googleapis.com/google.protobuf.{form.removeprefix('google-')}"
        return _wrong(where, sort, value, problems)
    if form == "byte":
        try:
            base64.b64decode(value, altchars=b"-_" if "-" in value or "_" in value else None)
        except (binascii.Error, ValueError):
            return _wrong(where, "TYPE_BYTES", value, problems)
    return value


def _object(schema: dict, value: dict, where: str, method: Method, problems: list) -> dict:
    properties, free = schema.get("properties", {}), schema.get("additionalProperties")
    clears, assigned = method.id in CLEARING, ASSIGNED.get(short(schema.get("id", "")), "").split()
    made = {}
    for name, inner in value.items():
        key = name if name in properties else camel(name)
        path = f"{where}.{name}" if where else name
        if inner is None and clears and (key in properties or free is not None):
            made[key if key in properties else name] = None
        elif key in properties:
            about = properties[key]
            if inner is not None and not is_output(about) and key not in assigned:
                made[key] = _value(about, inner, path, method, problems)
        elif free is not None:
            made[name] = _value(free, inner, path, method, problems)
        else:
            place = f" at '{where}'" if where else ""
            said = (
                f'Invalid JSON payload received. Unknown name "{name}"{place}: Cannot find field.'
            )
            problems.append((path, said))
    return made


def _integer(form: str, value: Any, where: str, problems: list) -> Any:
    sort, limit = f"TYPE_{form.upper()}", RANGES[form]
    number = value
    if isinstance(value, str):
        number = int(value) if re.fullmatch(r"-?\d{1,20}", value) else None
    elif isinstance(value, float) and value.is_integer():
        number = int(value)
    if isinstance(number, bool) or not isinstance(number, int):
        return _wrong(where, sort, value, problems)
    low = 0 if form.startswith("u") else -limit
    if not low <= number < limit:
        return _wrong(where, sort, value, problems)
    return str(number) if form.endswith("64") else number


def _enum(names: list[str], value: Any, where: str, problems: list) -> Any:
    if isinstance(value, str) and value in names:
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        numbers = ENUM_NUMBERS.get(names[0], {})
        by_number = {numbers.get(name, i): name for i, name in enumerate(names)}
        if value in by_number:
            return by_number[value]
    return _wrong(where, "TYPE_ENUM", value, problems)


def _required(schema: dict, value: Any, where: str, method: Method, missing: list[str]) -> None:
    """Collect required fields that are not set: those whose description begins so."""
    if "$ref" in schema:
        schema = method.document["schemas"][schema["$ref"]]
    if isinstance(value, list):
        for i, item in enumerate(value):
            _required(schema.get("items", {}), item, f"{where}[{i}]", method, missing)
    if not isinstance(value, dict) or schema.get("type") != "object":
        return
    for name, about in schema.get("properties", {}).items():
        is_set = value.get(name) not in (None, "", [])
        if not is_set and about.get("description", "").startswith("Required."):
            missing.append(f"{where}.{_snake(name)}" if where else _snake(name))
        elif name in value:
            path = f"{where}.{_snake(name)}" if where else _snake(name)
            _required(about, value[name], path, method, missing)


def _wrong(where: str, sort: str, value: Any, problems: list) -> Any:
    shown = orjson.dumps(value, default=str).decode()[:100]
    problems.append((where, f"Invalid value at '{_snake(where)}' ({sort}), {shown}"))
    return value


def _bad(field_name: str, message: str) -> ApiError:
    violation = {"field": field_name, "description": message[:300]}
    kind = "type.googleapis.com/google.rpc.BadRequest"
    return ApiError(400, message, details=[{"@type": kind, "fieldViolations": [violation]}])


def _from_text(about: dict, text: str) -> Any:
    if about["type"] == "boolean":
        return {"true": True, "false": False, "1": True, "0": False, "": False}.get(
            text.lower(), text
        )
    if about["type"] in ("integer", "number"):
        return text or "0"
    number = "enum" in about and text.isdecimal() and text not in about["enum"]
    return int(text) if number else text


def schemas(name: str) -> dict:
    """The messages of a document, such as `aiplatform.v1`."""
    head = next(head for head, documents in DOCUMENTS.items() if name in documents)
    return _documents(head)[DOCUMENTS[head].index(name)]["schemas"]


@functools.cache
def _documents(head: str) -> list[dict]:
    folder = Path(googleapiclient.__file__).parent / "discovery_cache" / "documents"
    return [orjson.loads((folder / f"{name}.json").read_bytes()) for name in DOCUMENTS[head]]


@functools.cache
def _tree(head: str) -> dict:
    """Path segments → methods; `*` stands for a parameter."""
    tree: dict = {}
    for method in methods(head):
        path = method.about.get("flatPath") or method.document["servicePath"] + method.about["path"]
        path, _, custom = path.rpartition(":") if ":" in path.split("/")[-1] else (path, "", "")
        node = tree
        for segment in path.split("/"):
            node = node.setdefault("*" if segment.startswith("{") else segment, {})
        node.setdefault((method.about["httpMethod"], custom), []).append(method)
    return tree


def _walk(node: dict, segments: list[str], leaf: tuple[str, str], out: list[Method]) -> None:
    if not segments:
        out += node.get(leaf, [])
        return
    for key in (segments[0], "*"):
        if isinstance(node.get(key), dict) and segments[0]:
            _walk(node[key], segments[1:], leaf, out)


def _methods(document: dict, resource: dict | None = None) -> list[Method]:
    resource = resource or document
    made = [Method(about["id"], about, document) for about in resource.get("methods", {}).values()]
    for inner in resource.get("resources", {}).values():
        made += _methods(document, inner)
    return made


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z0-9])([A-Z])", lambda m: "_" + m[1].lower(), name)
