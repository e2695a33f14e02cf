"""What a stranger needs to know of a model: a page beside it, and a line in the registry."""

import datetime
import hashlib
import json

from helpers.cloud import storage
from helpers.cloud.names import slug
from helpers.errors import NotFoundError
from helpers.looks.amounts import IN_UNIT, amount


def write(session, artifact_uri: str) -> tuple[str, dict[str, str]]:
    """Store `card.md` beside a model's folder `gs://…/model/`; what is not known is left out.

    Returns:
        A line for the version's description, and labels: what it predicts, from which data.
    """
    base = artifact_uri.rstrip("/").rpartition("/")[0]
    measured = _json(session, f"{base}/metrics.json")
    schema = _json(session, f"{artifact_uri}1/assets.extra/instance.yaml")
    answer = _json(session, f"{artifact_uri}1/assets.extra/prediction.yaml")
    target, data = answer.get("title", "unknown"), schema.get("title", "unknown")
    task, unit = answer.get("x-task", ""), answer.get("x-unit", "")
    facts = {"predicts": f"{target} ({' in '.join(filter(None, [task, unit]))})", "data": data}
    facts |= {k: v for k, v in measured.items() if isinstance(v, int)}  # rows, epochs, seed
    facts["TensorFlow"] = schema.get("x-tensorflow", "unknown")
    for uri in storage.list_uris(session, f"{base}/input/"):
        if uri.endswith(".ipynb"):
            digest = hashlib.sha256(storage.read_bytes(session, uri)).hexdigest()[:12]
            facts["notebook"] = f"{uri.rpartition('/')[2]}, sha256 {digest}"
    facts["registered"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    rivals = {"this model": measured.get("metrics", {})} | measured.get("baselines", {})
    names = list(rivals["this model"])
    scores = [[n.replace("_", " "), *(amount(m.get(k)) for k in names)] for n, m in rivals.items()]
    heads = [f"{name}, {unit}" if unit and name in IN_UNIT else name for name in names]
    columns = [[name, *_range(about)] for name, about in schema.get("properties", {}).items()]
    parts = [f"# Predicts {target} from {data}", _table(["what", "value"], facts.items())]
    parts += ["## On the test rows", _table(["model", *heads], scores)] if names else []
    parts += ["## Columns", _table(["column", "kind", "seen in training"], columns)]
    storage.write_bytes(session, ("\n\n".join(parts) + "\n").encode(), f"{base}/card.md")
    best = ", ".join(f"{name} {value:.4g}" for name, value in rivals["this model"].items())
    labels = {"target": target, "data": data} | ({"task": task} if task else {})
    labels = {key: slug(v, also="_") for key, v in labels.items()}
    return f"Predicts {target} from {data}. {best}".strip(), labels


def _range(about: dict) -> tuple[str, str]:
    levels, low, high = (about.get(k, d) for k, d in [("enum", []), ("minimum", 0), ("maximum", 0)])
    seen = ", ".join(levels[:12]) + ", …" * (len(levels) > 12) or "many texts"
    seen = seen if about["type"] == "string" else f"{low:.6g} to {high:.6g}"
    return about["type"], seen + (", may be missing" if about.get("nullable") else "")


def _table(head, rows) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells])


def _json(session, uri: str) -> dict:
    try:
        return json.loads(storage.read_bytes(session, uri))
    except NotFoundError:
        return {}
