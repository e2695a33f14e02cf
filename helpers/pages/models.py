"""Registered models: the list, one model with its versions side by side."""

from helpers.cloud import resources, storage
from helpers.cloud.names import beside, number
from helpers.errors import CloudError, NotFoundError
from helpers.looks.amounts import IN_UNIT, verdict
from helpers.pages.jobs import base_uri, read_json
from helpers.pages.views import Page, Session, Visit
from helpers.project.versions import versions

CARD_BYTES = 200_000
ABOUT = ("data", "rows_train", "rows_test", "epochs", "seed")


def every(session: Session) -> list[dict]:
    """All models, each as its default version, newest first."""
    return [_version(item) for item in resources.every(session, "models")]


def listed(visit: Visit) -> Page:
    return Page("models.html", {"models": every(visit.session)})


def show(visit: Visit) -> Page:
    session, model = visit.session, visit.path["id"]
    found = versions(session, f"{session.parent}/models/{model}")
    found.sort(key=lambda item: -int(item["versionId"]))
    serving = _serving(session, model)
    rows = [_version(item) | {"on": serving.get(item["versionId"], [])} for item in found]
    by_number = {row["version"]: row for row in rows}
    left = visit.query.get("a") or rows[0]["version"]
    right = visit.query.get("b") or next((n for n in by_number if n != left), "")
    for wanted in filter(None, (left, right)):
        if wanted not in by_number:
            raise NotFoundError(f'Model "{rows[0]["name"]}" has no version "{wanted}".')
    chosen = by_number[left]
    schema, answer = schemas(session, chosen["artifact"])
    return Page("model.html", {
        "model": rows[0], "versions": rows, "a": left, "b": right, "chosen": chosen,
        "columns": inputs(schema), "outputs": list(properties(answer)) or
        ([answer["title"]] if "title" in answer else []), "unit": answer.get("x-unit", ""),
        "comparison": _compared(session, chosen, by_number.get(right)),
        "card": _card(session, chosen), "job": _made_by(session, chosen),
    })  # fmt: skip


def schemas(session: Session, artifact: str) -> list[dict]:
    """What a table's model takes, and what it answers; {} where nothing says so."""
    kinds = ("instance", "prediction")
    return [read_json(session, f"{artifact}1/assets.extra/{kind}.yaml") for kind in kinds]


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
    for item in resources.every(session, "endpoints"):
        where = {"id": number(item["name"]), "name": item["displayName"]}
        for one in item.get("deployedModels", []):
            if number(one["model"]) == model:
                share = item.get("trafficSplit", {}).get(one["id"], 0)
                found.setdefault(one["modelVersionId"], []).append(where | {"share": share})
    return found


def _version(item: dict) -> dict:
    return {
        "id": number(item["name"]), "name": item["displayName"],
        "version": item.get("versionId", ""), "aliases": item.get("versionAliases", []),
        "created": item.get("versionCreateTime") or item["createTime"],
        "description": item.get("versionDescription", ""), "labels": item.get("labels", {}),
        "artifact": item.get("artifactUri", "").rstrip("/") + "/",
        "deployed": bool(item.get("deployedModels")),
    }  # fmt: skip


def _compared(session: Session, chosen: dict, other: dict | None) -> dict | None:
    """Metrics of two versions and of what they had to beat; a row a metric."""
    measured = read_json(session, beside(chosen["artifact"], "metrics.json"))
    theirs = read_json(session, beside(other["artifact"], "metrics.json")) if other else {}
    mine, theirs = _metrics(measured), _metrics(theirs)
    if not mine:
        return None
    baselines = _dict(measured.get("baselines"))
    rivals = {k.replace("_", " "): _dict(v) for k, v in baselines.items()}
    if measured.get("noise_mae") is not None:
        rivals["noise alone (the limit)"] = {"mae": measured["noise_mae"]}
    rows = [
        {
            "name": name, "unit": str(measured.get("unit", "")) if name in IN_UNIT else "",
            "a": value, "b": theirs.get(name), "verdict": verdict(name, value, theirs.get(name)),
            "rivals": [rival.get(name) for rival in rivals.values()],
        }
        for name, value in mine.items()
    ]  # fmt: skip
    about = {k: measured[k] for k in ABOUT if k in measured}
    return {"rows": rows, "rivals": list(rivals), "about": about}


def _metrics(measured: dict) -> dict:
    """What a metrics.json says: its numbers, those under `metrics` where it has that."""
    kept = _dict(measured.get("metrics")) or {k: v for k, v in measured.items() if k not in ABOUT}
    return {k: v for k, v in kept.items() if type(v) in (int, float)}


def _dict(value) -> dict:
    return value if isinstance(value, dict) else {}


def _card(session: Session, version: dict) -> str:
    """The model card as HTML; what it holds of HTML itself is text."""
    try:
        raw = storage.read_part(session, beside(version["artifact"], "card.md"), 0, CARD_BYTES)
    except CloudError:
        return ""
    import mistune  # no other page needs it

    markdown = mistune.create_markdown(escape=True, plugins=["table"])
    return markdown(raw.decode(errors="replace"))


def _made_by(session: Session, version: dict) -> dict | None:
    folder = beside(version["artifact"], "").rstrip("/")
    for job in resources.every(session, "customJobs"):
        if base_uri(job["jobSpec"]) == folder:
            return {"id": number(job["name"]), "name": job["displayName"]}
    return None
