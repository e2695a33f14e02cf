"""A model's folder in a bucket: which files say what it takes, how good it is, what it is held to.

`gs://…/model/` holds `1/saved_model.pb`. Beside a folder named `model`, as a job leaves it, lie
metrics.json, examples.jsonl and card.md; of a folder with another name they lie inside it, as it
may have neighbours.
"""

import hashlib
import json
import re
from pathlib import Path

from helpers.cloud import storage
from helpers.cloud.names import beside, slug
from helpers.errors import DataError, NotFoundError, SettingError
from helpers.inputs import examples, metrics, signature

CARD = "card.md"
UNREAD = {"float16", "bfloat16", "uint16", "complex64", "complex128"}


def version_folder(session, uri: str) -> str:
    """The numbered folder below `uri` that a server loads, `gs://…/1/`; "" if there is none."""
    uri = uri.rstrip("/") + "/"
    found = (
        re.fullmatch(r"(.*/(\d+)/)saved_model\.pb", one) for one in storage.list_uris(session, uri)
    )
    numbered = [match for match in found if match and match[1].count("/") == uri.count("/") + 1]
    return max(numbered, key=lambda match: int(match[2]))[1] if numbered else ""


def saved_model(session, folder: str) -> signature.SavedModel:
    """What `folder`/saved_model.pb says of itself.

    Raises:
        DataError: it is no SavedModel.
    """
    uri = f"{folder}saved_model.pb"
    return signature.read(storage.read_bytes(session, uri), uri)


def checked(session, folder: str, server: str) -> signature.SavedModel:
    """What the model says of itself; refused where no server could serve it.

    Args:
        server: the version of TensorFlow Serving; one older than the exporter can't be trusted.
    Raises:
        DataError: nobody can call it.  SettingError: the server is older.
    """
    try:
        saved = saved_model(session, folder)
    except DataError as error:
        print(f"{error} It is registered as it is; the server will refuse it.")
        return signature.SavedModel("", {})
    if not saved.signatures:
        raise DataError(
            f"{folder} has no signatures, so nobody can call it. Write it with helpers.export."
        )
    for name, call in saved.signatures.items():
        kinds = {about.dtype for about in (call.inputs | call.outputs).values()} & UNREAD
        if kinds and not name.startswith("packed_"):
            print(
                f"Note: TensorFlow Serving has no JSON for {', '.join(sorted(kinds))}, which "
                f'"{name}" takes or answers; a Keras model exported with helpers.export has none.'
            )
    found = (re.match(r"(\d+)\.(\d+)", version) for version in (saved.tensorflow, server))
    minor = [tuple(map(int, match.groups())) for match in found if match]
    if len(minor) == 2 and minor[1] < minor[0]:
        raise SettingError(
            f"The model was exported by TensorFlow {saved.tensorflow}; TensorFlow Serving "
            f"{server} is older. Train with TensorFlow {server} or name a newer "
            "server in the environment variable SERVING_VERSION."
        )
    return saved


def nothing(session, uri: str) -> NotFoundError:
    """The error of a folder without a model; what is there is named."""
    base = beside(uri, "")
    left = [one.removeprefix(base) for one in storage.list_uris(session, base)]
    there = f" There: {', '.join(left[:6])}{', …' if len(left) > 6 else ''}." if left else ""
    return NotFoundError(
        f"No exported model in {uri} (1/saved_model.pb is missing).{there} "
        "helpers.export(model) writes one."
    )


def described(session, folder: str, kind: str) -> dict:
    """A table's schema, `instance` or `prediction`; {} for models of other kinds."""
    return _json(session, f"{folder}assets.extra/{kind}.yaml")


def measured(session, uri: str) -> dict:
    """The metrics.json that travels with a model, or {}."""
    return _json(session, beside(uri, metrics.NAME))


def held_out(session, uri: str, instance: dict) -> examples.Examples:
    """The examples that travel with a model, if any do."""
    for where in dict.fromkeys([beside(uri, examples.NAME), f"{uri.rstrip('/')}/{examples.NAME}"]):
        try:
            return examples.read(storage.read_bytes(session, where), where, instance)
        except NotFoundError:
            continue
    return examples.NONE


def store(session, folder: Path, name: str) -> str:
    """Store a local SavedModel and what travels with it, below a name made of its content.

    Args:
        folder: a SavedModel's own, or one with numbered ones in it, of which the newest counts.
    Returns:
        The address of the model's folder, `gs://…/model/`.
    """
    folder = folder.absolute()
    numbered = [p for p in folder.glob("*/saved_model.pb") if p.parent.name.isdecimal()]
    saved = max(numbered, key=lambda path: int(path.parent.name), default=folder / "_").parent
    if not (saved / "saved_model.pb").is_file():
        raise SettingError(
            f"{folder} holds no SavedModel (1/saved_model.pb). helpers.export writes one."
        )
    top = saved.parent if numbered or saved.name.isdecimal() else saved
    lies = top.parent if top.name == "model" else top
    files = {f"model/1/{p.relative_to(saved).as_posix()}": p for p in saved.rglob("*")
             if p.is_file()}  # fmt: skip
    files |= {
        name: lies / name for name in (examples.NAME, metrics.NAME) if (lies / name).is_file()
    }
    digest = hashlib.sha256()
    for file in sorted(files):
        digest.update(file.encode() + b"\0" + files[file].read_bytes())
    stem = slug(name, 60).strip("-") or "model"
    base = f"gs://{session.bucket}/models/{stem}-{digest.hexdigest()[:12]}"
    there = set(storage.list_uris(session, f"{base}/"))
    for file in sorted(files, key=lambda file: file.endswith("saved_model.pb")):
        if f"{base}/{file}" not in there:
            storage.upload_file(session, files[file], f"{base}/{file}")
    return f"{base}/model/"


def _json(session, uri: str) -> dict:
    try:
        return json.loads(storage.read_bytes(session, uri))
    except NotFoundError:
        return {}
