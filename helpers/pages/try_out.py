"""Test & use: a form made of a model's inputs, its answer, and the same call to copy."""

import contextlib
import json
import time

from helpers.cloud import storage
from helpers.cloud.names import beside
from helpers.errors import CloudError, NotDeployedError, SchemaError
from helpers.looks.amounts import amount
from helpers.pages import endpoints, forms, models
from helpers.pages.views import Page, Session, Visit, whole
from helpers.project import online

EXAMPLES_BYTES = 2_000_000
WAKING = 8  # tries while a machine that scaled to zero starts, about 20 s


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
    schema, said = models.schemas(session, artifact)
    inputs = forms.inputs(session, artifact, schema)
    examples = _examples(session, artifact) or forms.only_example(schema, inputs)
    place = whole(visit.query.get("example", "")) % max(1, len(examples))
    example = examples[place] if examples else {"instance": {}, "truth": None}
    url = endpoints.address(session, endpoint)
    values = {
        "endpoint": endpoint, "serving": serving, "number": place, "examples": len(examples),
        "fields": forms.fields(inputs, example["instance"], visit.form), "url": f"{url}:predict",
        "instance": example["instance"], "truth": example["truth"], "answer": None, "problem": "",
        "unit": said.get("x-unit", ""), "target": said.get("title", ""),
        "state": visit.state and str(visit.state),
    }  # fmt: skip
    if visit.form is not None:
        try:
            instance = values["instance"] = forms.filled(inputs, visit.form)
            begun_s = time.monotonic()
            body = json.dumps({"instances": [instance]})
            about = {"host": endpoint["host"], "waking": WAKING}
            values["answer"] = _drawn(online.post(session, url, "predict", body, **about), values)
            values["took_ms"] = round(1000 * (time.monotonic() - begun_s))
            values["unchanged"] = instance == example["instance"]
        except (SchemaError, CloudError) as error:
            values["problem"] = str(error)
    row = forms.row(inputs, values["instance"]) if models.properties(schema) else None
    return Page("try_out.html", values | {"row": row})


def _examples(session: Session, artifact: str) -> list[dict]:
    """Held-out instances that travel with the model, each with its truth."""
    try:
        raw = storage.read_part(session, beside(artifact, "examples.jsonl"), 0, EXAMPLES_BYTES)
    except CloudError:
        return []
    found = []
    for line in raw.splitlines():
        with contextlib.suppress(ValueError, KeyError, TypeError):  # cut, or no example
            one = json.loads(line)
            found.append({"instance": one["instance"], "truth": one["truth"]})
    return found


def _drawn(answer: dict, values: dict) -> dict:
    """One prediction as bars: an amount beside the truth, or a share a class."""
    prediction, truth = answer["predictions"][0], values["truth"]
    unit, target, bars = values["unit"], values["target"], []
    made = {"json": json.dumps(prediction, indent=1), "version": answer.get("modelVersionId", ""),
            "value": None, "exact": "", "bars": bars}  # fmt: skip
    if isinstance(prediction, dict) and len(prediction) == 1:
        prediction = next(iter(prediction.values()))
    if isinstance(prediction, int | float):
        made |= {"value": amount(float(prediction), unit, 6), "exact": repr(prediction)}
        shown = {"the model's answer": prediction, "the truth": truth}
        shown = {name: float(v) for name, v in shown.items() if isinstance(v, int | float)}
        most = max(map(abs, shown.values())) or 1
        for name, value in shown.items():
            bars.append((name, 300 * abs(value) / most, amount(value, unit, 6)))
    elif isinstance(prediction, dict) and target in prediction:
        made |= {"value": str(prediction[target]), "exact": str(prediction[target])}
        for name, value in prediction.items():
            if name != target and isinstance(value, int | float):
                label = name.removeprefix("probability_")
                mark = " (the truth)" if truth is not None and str(truth) == label else ""
                bars.append((label + mark, 300 * value, f"{100 * value:.1f} %"))
    return made
