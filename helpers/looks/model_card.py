"""What a stranger needs to know of a model: a page beside it, and a line in the registry."""

import datetime
import hashlib

from helpers.cloud import storage
from helpers.cloud.names import beside, slug
from helpers.inputs import artifact
from helpers.inputs.requests import is_table
from helpers.inputs.signature import DEFAULT, SavedModel, Signature
from helpers.looks.amounts import IN_UNIT, amount


def write(
    session, artifact_uri: str, saved: SavedModel, *, instance: dict, prediction: dict
) -> tuple[str, dict[str, str]]:
    """Store `card.md` beside a model's folder `gs://…/model/`; what is not known is left out.

    Args:
        instance, prediction: the schemas of a table's model; {} for other models.
    Returns:
        A line for the version's description, and labels: what it predicts, from which data.
    """
    where = beside(artifact_uri, artifact.CARD)
    base = where.rpartition("/")[0]
    measured = artifact.measured(session, artifact_uri)
    subject, facts, labels = _subject(saved, instance, prediction)
    facts |= {k: v for k, v in measured.items() if isinstance(v, int)}  # rows, epochs, seed
    facts["TensorFlow"] = saved.tensorflow or "unknown"
    for uri in storage.list_uris(session, f"{base}/input/"):
        if uri.endswith(".ipynb"):
            digest = hashlib.sha256(storage.read_bytes(session, uri)).hexdigest()[:12]
            facts["notebook"] = f"{uri.rpartition('/')[2]}, sha256 {digest}"
    facts["registered"] = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d")
    rivals = {"this model": measured.get("metrics", {})} | measured.get("baselines", {})
    names = list(rivals["this model"])
    scores = [[n.replace("_", " "), *(amount(m.get(k)) for k in names)] for n, m in rivals.items()]
    unit = prediction.get("x-unit", "")
    heads = [f"{name}, {unit}" if unit and name in IN_UNIT else name for name in names]
    parts = [f"# {subject}", _table(["what", "value"], facts.items())]
    parts += ["## On the test rows", _table(["model", *heads], scores)] if names else []
    if is_table(instance):
        columns = [[name, *_range(about)] for name, about in instance["properties"].items()]
        parts += ["## Columns", _table(["column", "kind", "seen in training"], columns)]
    else:
        shown = {n: s for n, s in saved.signatures.items() if not n.startswith("packed_")}
        calls = [[name, *_call(signature)] for name, signature in shown.items()]
        parts += ["## Signatures", _table(["name", "takes", "answers"], calls)]
    storage.write_bytes(session, ("\n\n".join(parts) + "\n").encode(), where)
    best = ", ".join(f"{name} {value:.4g}" for name, value in rivals["this model"].items())
    labels = {key: slug(v, also="_") for key, v in labels.items()}
    return f"{subject}. {best}".strip(), labels


def _subject(saved: SavedModel, instance: dict, prediction: dict) -> tuple[str, dict, dict]:
    """What a model is for, in a line, as facts and as labels."""
    target, data = prediction.get("title"), instance.get("title")
    if target and data:
        task, unit = prediction.get("x-task", ""), prediction.get("x-unit", "")
        facts = {"predicts": f"{target} ({' in '.join(filter(None, [task, unit]))})", "data": data}
        labels = {"target": target, "data": data} | ({"task": task} if task else {})
        return f"Predicts {target} from {data}", facts, labels
    default = saved.signatures.get(DEFAULT, next(iter(saved.signatures.values()), None))
    if default is None:
        return "A model whose signatures can't be read", {}, {}
    takes, answers = _call(default)
    labels = {"takes": "-".join(default.inputs), "answers": "-".join(default.outputs)}
    return f"Takes {takes}; answers {answers}", {"takes": takes, "answers": answers}, labels


def _call(signature: Signature) -> tuple[str, str]:
    return tuple(str(signature).split(" → "))


def _range(about: dict) -> tuple[str, str]:
    levels, low, high = (about.get(k, d) for k, d in [("enum", []), ("minimum", 0), ("maximum", 0)])
    seen = ", ".join(levels[:12]) + ", …" * (len(levels) > 12) or "many texts"
    seen = seen if about["type"] == "string" else f"{low:.6g} to {high:.6g}"
    return about["type"], seen + (", may be missing" if about.get("nullable") else "")


def _table(head, rows) -> str:
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [head, ["---"] * len(head), *cells])
