"""Registered models: the list, one model with its versions side by side."""

import math

from helpers.cloud import storage
from helpers.errors import CloudError, NotFoundError
from helpers.looks.amounts import IN_UNIT
from helpers.pages.jobs import read_json
from helpers.pages.visits import Page, Session, Visit

CARD_BYTES = 200_000
ABOUT = ("data", "rows_train", "rows_test", "epochs", "seed")


def every(session: Session) -> list[dict]:
    """All models, newest first."""
    found = session.list(session.collection("models"), "models", parent=session.parent)
    return [
        {
            "id": item["name"].rsplit("/", 1)[-1].split("@")[0], "name": item["displayName"],
            "version": item.get("versionId", ""), "aliases": item.get("versionAliases", []),
            "description": item.get("versionDescription", ""), "labels": item.get("labels", {}),
            "created": item.get("versionCreateTime") or item["createTime"],
            "deployed": bool(item.get("deployedModels")),
        }
        for item in found
    ]  # fmt: skip


def versions(session: Session, model: str) -> list[dict]:
    """All versions of a model as the API shows them, the newest first."""
    collection, found = session.collection("models"), []
    request = collection.listVersions(name=model)
    while request is not None:
        answer = session.call(request)
        found += answer.get("models", [])
        request = collection.listVersions_next(request, answer)
    return sorted(found, key=lambda version: -int(version["versionId"]))


def listed(visit: Visit) -> Page:
    return Page("models.html", {"models": every(visit.session)})


def show(visit: Visit) -> Page:
    session = visit.session
    name = f"{session.parent}/models/{visit.path['id']}"
    serving = _serving(session, name)
    rows = [_version(item, serving) for item in versions(session, name)]
    numbers = [row["version"] for row in rows]
    left = visit.query.get("a") or numbers[0]
    right = visit.query.get("b") or next((n for n in numbers if n != left), "")
    for number in filter(None, (left, right)):
        if number not in numbers:
            raise NotFoundError(f'Model "{rows[0]["name"]}" has no version "{number}".')
    chosen = next(row for row in rows if row["version"] == left)
    other = next((row for row in rows if row["version"] == right), None)
    schema = read_json(session, f"{chosen['artifact']}1/assets.extra/instance.yaml")
    answer = read_json(session, f"{chosen['artifact']}1/assets.extra/prediction.yaml")
    return Page("model.html", {
        "model": rows[0], "versions": rows, "a": left, "b": right, "chosen": chosen,
        "columns": inputs(schema), "outputs": list(properties(answer)) or
        ([answer["title"]] if "title" in answer else []), "unit": answer.get("x-unit", ""),
        "comparison": _compared(session, chosen, other), "card": _card(session, chosen),
        "job": _made_by(session, chosen), "id": visit.path["id"],
    })  # fmt: skip


def properties(schema: dict) -> dict[str, dict]:
    """The columns of a schema; {} when they are not what a schema has."""
    return {k: v for k, v in _dict(schema.get("properties")).items() if isinstance(v, dict)}


def inputs(schema: dict) -> list[dict]:
    """A row an input: `name`, `type`, and what training saw of it."""
    rows = []
    for name, about in properties(schema).items():
        levels = [str(level) for level in about.get("enum", [])]
        seen = ", ".join(levels[:12]) + (", …" if len(levels) > 12 else "")
        if "minimum" in about and "maximum" in about:
            seen = f"{about['minimum']:.6g} to {about['maximum']:.6g}"
        empty = ", may be missing" if about.get("nullable") else ""
        rows.append({"name": name, "type": about.get("type", ""), "seen": seen + empty})
    return rows


def _serving(session: Session, model: str) -> dict[str, list[dict]]:
    """Version → the endpoints it is on, with its share."""
    found: dict[str, list[dict]] = {}
    endpoints = session.collection("endpoints")
    for item in session.list(endpoints, "endpoints", parent=session.parent):
        for one in item.get("deployedModels", []):
            if one["model"].split("@")[0].rsplit("/", 1)[-1] == model.rsplit("/", 1)[-1]:
                share = item.get("trafficSplit", {}).get(one["id"], 0)
                where = {"id": item["name"].rsplit("/", 1)[-1], "name": item["displayName"]}
                found.setdefault(one["modelVersionId"], []).append(where | {"share": share})
    return found


def _version(item: dict, serving: dict) -> dict:
    number = item["versionId"]
    return {
        "name": item["displayName"], "version": number, "aliases": item.get("versionAliases", []),
        "created": item.get("versionCreateTime") or item["createTime"],
        "description": item.get("versionDescription", ""), "labels": item.get("labels", {}),
        "artifact": item.get("artifactUri", "").rstrip("/") + "/",
        "on": serving.get(number, []), "serves": any(w["share"] for w in serving.get(number, [])),
    }  # fmt: skip


def _folder(version: dict) -> str:
    """Where what travels with a model lies: beside a folder named `model`, in any other."""
    folder = version["artifact"].rstrip("/")
    return folder.rpartition("/")[0] if folder.endswith("/model") else folder


def _compared(session: Session, chosen: dict, other: dict | None) -> dict | None:
    """Metrics of two versions and of what they had to beat; a row a metric."""
    measured = read_json(session, f"{_folder(chosen)}/metrics.json")
    mine = _metrics(measured)
    if not mine:
        return None
    theirs = _metrics(read_json(session, f"{_folder(other)}/metrics.json")) if other else {}
    baselines = _dict(measured.get("baselines"))
    rivals = {k.replace("_", " "): _dict(v) for k, v in baselines.items()}
    if measured.get("noise_mae") is not None:
        rivals["noise alone (the limit)"] = {"mae": measured["noise_mae"]}
    rows = []
    for name, value in mine.items():
        unit = str(measured.get("unit", "")) if name in IN_UNIT else ""
        rows.append({
            "name": name, "unit": unit, "a": value, "b": theirs.get(name),
            "verdict": verdict(name, value, theirs.get(name)),
            "rivals": [rival.get(name) for rival in rivals.values()],
        })  # fmt: skip
    about = {k: measured[k] for k in ABOUT if k in measured}
    return {"rows": rows, "rivals": list(rivals), "about": about}


def _metrics(measured: dict) -> dict:
    """What a metrics.json says: its numbers, those under `metrics` where it has that."""
    kept = _dict(measured.get("metrics")) or {k: v for k, v in measured.items() if k not in ABOUT}
    return {k: v for k, v in kept.items() if type(v) in (int, float)}


def _dict(value) -> dict:
    return value if isinstance(value, dict) else {}


def verdict(metric: str, ours, theirs) -> str:
    """`12 % better`: by how much a metric of ours differs; "" when there is nothing to compare."""
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (ours, theirs))
    if not numbers or not theirs:
        return ""
    more_is_better = metric in ("r2", "accuracy", "auc", "precision", "recall", "f1")
    gain = 100 * (ours - theirs) / abs(theirs) * (1 if more_is_better else -1)
    if abs(gain) < 0.05:
        return "the same"
    return f"{float(f'{abs(gain):.2g}'):g} % {'better' if gain > 0 else 'worse'}"


def _card(session: Session, version: dict) -> str:
    """The model card as HTML; what it holds of HTML itself is text."""
    try:
        raw = storage.read_part(session, f"{_folder(version)}/card.md", 0, CARD_BYTES)
    except CloudError:
        return ""
    import mistune  # no other page needs it

    markdown = mistune.create_markdown(escape=True, plugins=["table"])
    return markdown(raw.decode(errors="replace"))


def _made_by(session: Session, version: dict) -> dict | None:
    jobs = session.list(session.collection("customJobs"), "customJobs", parent=session.parent)
    for job in jobs:
        base = job["jobSpec"].get("baseOutputDirectory", {}).get("outputUriPrefix", "")
        if base and base.rstrip("/") == _folder(version):
            return {"id": job["name"].rsplit("/", 1)[-1], "name": job["displayName"]}
    return None
