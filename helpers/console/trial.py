"""Test & use: a form made of a model's inputs, its answer, and the same call to copy."""

import json
import time

from helpers.cloud import storage
from helpers.cloud.client import LOST
from helpers.console import endpoints, jobs, models
from helpers.console.visits import Page, Session, Visit
from helpers.errors import CloudError, NotDeployedError, SchemaError
from helpers.looks.amounts import amount

EXAMPLES_BYTES = 2_000_000
WAKING_S = 20  # a machine that scaled to zero is waited for so long
LEVELS = 200  # a longer list of levels is a text to type


def show(visit: Visit) -> Page:
    session = visit.session
    endpoint = endpoints.about(session, visit.path["id"])
    if not endpoint["deployed"]:
        raise NotDeployedError(
            f'No model serves on endpoint "{endpoint["name"]}". Deploy one first.'
        )
    serving = max(endpoint["deployed"], key=lambda one: one["share"])
    name = f"{session.parent}/models/{serving['model']}@{serving['version']}"
    model = session.call(session.collection("models").get(name=name))
    artifact = model.get("artifactUri", "").rstrip("/") + "/"
    schema = jobs.read_json(session, f"{artifact}1/assets.extra/instance.yaml")
    said = jobs.read_json(session, f"{artifact}1/assets.extra/prediction.yaml")
    examples = _examples(session, artifact) or _only(schema)
    wanted = visit.query.get("example", "0")
    number = int(wanted) % len(examples) if wanted.isdecimal() and examples else 0
    example = examples[number] if examples else {"instance": {}, "truth": None}
    fields = _fields(schema, example["instance"])
    values = {
        "endpoint": endpoint, "serving": serving, "fields": fields, "number": number,
        "examples": len(examples), "answer": None, "problem": "", "instance": example["instance"],
        "truth": example["truth"], "unit": said.get("x-unit", ""), "target": said.get("title", ""),
    }  # fmt: skip
    if visit.form is not None:
        try:
            instance = _filled(fields, visit.form, schema)
            values |= {"instance": instance, "fields": _fields(schema, instance, visit.form)}
            begun_s = time.monotonic()
            answer = _ask(session, endpoint, instance)
            values["answer"] = _drawn(answer, values)
            values["took_ms"] = round(1000 * (time.monotonic() - begun_s))
            values["unchanged"] = instance == example["instance"]
        except (SchemaError, CloudError) as error:
            values["problem"] = str(error)
            values["fields"] = _fields(schema, example["instance"], visit.form)
    instance = values["instance"]
    flat = isinstance(instance, dict) and not any(isinstance(v, dict) for v in instance.values())
    values |= {"url": f"{endpoints.address(session, endpoint)}:predict", "flat": flat}
    return Page("trial.html", values | {"state": visit.state and str(visit.state)})


def _examples(session: Session, artifact: str) -> list[dict]:
    """Held-out instances that travel with the model, each with its truth."""
    uri = artifact.rstrip("/").rpartition("/")[0] + "/examples.jsonl"
    try:
        raw = storage.read_part(session, uri, 0, EXAMPLES_BYTES)
    except CloudError:
        return []
    found = []
    for line in raw.splitlines(keepends=True):
        if line.endswith(b"\n"):  # the last one may have been cut
            one = json.loads(line)
            found.append({"instance": one["instance"], "truth": one.get("truth")})
    return found


def _only(schema: dict) -> list[dict]:
    example = schema.get("example")
    if example is None:
        return []
    wire = {name: _on_wire(value, name, schema) for name, value in example.items()}
    return [{"instance": wire, "truth": None}]


def _on_wire(value, name: str, schema: dict):
    kind = "string" if schema["properties"][name].get("type") == "string" else "number"
    return schema["x-missing"][kind] if value is None else value


def _fields(schema: dict, instance, typed: dict | None = None) -> list[dict]:
    """A field an input; one box of JSON where nothing is known of them."""
    properties = schema.get("properties", {})
    if not properties or not isinstance(instance, dict):
        given = typed.get("instance") if typed else json.dumps(instance, indent=1)
        return [
            {"name": "instance", "kind": "json", "value": given, "note": "one instance, as JSON"}
        ]
    made, notes = [], {row["name"]: row["seen"] for row in models.inputs(schema)}
    for name, about in properties.items():
        value = instance.get(name, "")
        missing = value in schema.get("x-missing", {}).values() and about.get("nullable")
        levels = [str(level) for level in about.get("enum", [])][:LEVELS]
        kind = "number" if about.get("type") in ("number", "integer") else "text"
        if kind == "text" and levels:
            kind = "choice"
        if about.get("format") in ("byte", "binary") or (
            isinstance(value, dict) and "b64" in value
        ):
            kind, value = "image", value.get("b64", "") if isinstance(value, dict) else value
        elif isinstance(value, dict | list):
            kind, value = "json", json.dumps(value)
        shown = "" if missing else repr(value) if isinstance(value, float) else value
        shown = typed.get(f"in-{name}", "") if typed else shown
        made.append({"name": name, "kind": kind, "value": str(shown), "levels": levels,
                     "note": notes[name], "nullable": bool(about.get("nullable"))})  # fmt: skip
    return made


def _filled(fields: list[dict], form: dict, schema: dict):
    """The instance that a sent form means.

    Raises:
        SchemaError: names the field and what was expected.
    """
    if fields[0]["name"] == "instance" and fields[0]["kind"] == "json":
        return _json("instance", form.get("instance", ""))
    instance = {}
    for field in fields:
        name, text = field["name"], form.get(f"in-{field['name']}", "").strip()
        kind = "number" if field["kind"] == "number" else "string"
        if not text and field["nullable"]:
            instance[name] = schema["x-missing"][kind]
        elif not text and field["kind"] != "text":
            raise SchemaError(
                f'Input "{name}" is empty; the model was trained on data without gaps there.'
            )
        elif field["kind"] == "number":
            instance[name] = _number(name, text)
        elif field["kind"] == "json":
            instance[name] = _json(name, text)
        else:
            instance[name] = {"b64": text} if field["kind"] == "image" else text
    return instance


def _number(name: str, text: str) -> int | float:
    try:
        return int(text) if text.lstrip("-").isdecimal() else float(text.replace(",", ""))
    except ValueError as error:
        raise SchemaError(f'Input "{name}" holds "{text[:60]}"; expected a number.') from error


def _json(name: str, text: str):
    try:
        return json.loads(text)
    except ValueError as error:
        raise SchemaError(f'Input "{name}" is not JSON: {error}.') from error


def _ask(session: Session, endpoint: dict, instance) -> dict:
    """The service's whole answer to one instance.

    Source: REST v1 projects.locations.endpoints.predict
    """
    url, body = (
        f"{endpoints.address(session, endpoint)}:predict",
        json.dumps({"instances": [instance]}),
    )
    headers = {"Content-Type": "application/json"}
    headers |= {"Host": endpoint["host"]} if endpoint["host"] else {}
    deadline = time.monotonic() + WAKING_S
    while True:
        try:
            answer, content = session.http().request(url, "POST", body, headers)
        except LOST as error:
            session.renew()
            raise CloudError(f"{url} gave no answer ({error}).") from error
        if answer.status != 429 or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    if answer.status != 200:
        said = content.decode(errors="replace")
        try:
            said = json.loads(said)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            said = said[:1000]
        raise CloudError(f"The endpoint answered {answer.status}: {said}", status=answer.status)
    return json.loads(content)


def _drawn(answer: dict, values: dict) -> dict:
    """One prediction as bars: an amount beside the truth, or a share a class."""
    prediction, truth = answer["predictions"][0], values["truth"]
    unit, target = values["unit"], values["target"]
    made = {"json": json.dumps(prediction, indent=1), "version": answer.get("modelVersionId", ""),
            "value": None, "exact": "", "bars": []}  # fmt: skip
    if isinstance(prediction, dict) and len(prediction) == 1:
        prediction = next(iter(prediction.values()))
    if isinstance(prediction, int | float):
        bars = [("the model's answer", prediction)]
        bars += [("the truth", truth)] if isinstance(truth, int | float) else []
        most = max(abs(value) for _, value in bars) or 1
        made |= {"value": amount(float(prediction), unit, 6), "exact": repr(prediction)}
        for name, value in bars:
            wide, text = round(300 * abs(value) / most, 1), amount(float(value), unit, 6)
            made["bars"].append({"name": name, "wide": wide, "text": text})
    elif isinstance(prediction, dict) and target in prediction:
        made |= {"value": str(prediction[target]), "exact": str(prediction[target])}
        for name, value in prediction.items():
            if name != target and isinstance(value, int | float):
                label = name.removeprefix("probability_")
                mark = " (the truth)" if truth is not None and str(truth) == label else ""
                made["bars"].append({"name": label + mark, "wide": round(300 * value, 1),
                                     "text": f"{100 * value:.1f} %"})  # fmt: skip
    return made
