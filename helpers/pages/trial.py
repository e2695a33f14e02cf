"""Test & use: a form made of a model's inputs, its answer, and the same call to copy."""

import contextlib
import json
import time

from helpers.cloud import storage
from helpers.cloud.client import LOST
from helpers.errors import CloudError, NotDeployedError, SchemaError
from helpers.looks.amounts import amount
from helpers.pages import endpoints, forms, jobs, models
from helpers.pages.visits import Page, Session, Visit

EXAMPLES_BYTES = 2_000_000
WAKING_S = 20  # a machine that scaled to zero is waited for so long


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
    inputs = forms.inputs(session, artifact, schema)
    examples = _examples(session, artifact) or forms.only_example(schema, inputs)
    wanted = visit.query.get("example", "0")
    number = int(wanted) % len(examples) if wanted.isdecimal() and examples else 0
    example = examples[number] if examples else {"instance": {}, "truth": None}
    values = {
        "endpoint": endpoint, "serving": serving, "number": number, "examples": len(examples),
        "fields": forms.fields(inputs, example["instance"]), "answer": None, "problem": "",
        "instance": example["instance"], "truth": example["truth"],
        "unit": said.get("x-unit", ""), "target": said.get("title", ""),
    }  # fmt: skip
    if visit.form is not None:
        values["fields"] = forms.fields(inputs, example["instance"], visit.form)
        try:
            instance = values["instance"] = forms.filled(inputs, visit.form)
            begun_s = time.monotonic()
            values["answer"] = _drawn(_ask(session, endpoint, instance), values)
            values["took_ms"] = round(1000 * (time.monotonic() - begun_s))
            values["unchanged"] = instance == example["instance"]
        except (SchemaError, CloudError) as error:
            values["problem"] = str(error)
    instance = values["instance"]
    row = forms.row(inputs, instance) if models.properties(schema) else None
    values |= {"url": f"{endpoints.address(session, endpoint)}:predict", "row": row}
    return Page("trial.html", values | {"state": visit.state and str(visit.state)})


def _examples(session: Session, artifact: str) -> list[dict]:
    """Held-out instances that travel with the model, each with its truth."""
    folder = artifact.rstrip("/")
    beside = folder.rpartition("/")[0] if folder.endswith("/model") else folder
    try:
        raw = storage.read_part(session, f"{beside}/examples.jsonl", 0, EXAMPLES_BYTES)
    except CloudError:
        return []
    found = []
    for line in raw.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # cut, or no example
            one = json.loads(line)
            found.append({"instance": one["instance"], "truth": one["truth"]})
    return found


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
