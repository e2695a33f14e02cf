"""The model registry: models, their versions and aliases; artifacts are copied, as Google does.

One row of the state holds a model with all its versions, so every change is one atomic write.
"""

import shutil
import threading
from pathlib import Path

from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    check_etag,
    etag,
    found,
    method,
    now,
    page,
    patch,
    refused,
)  # fmt: skip
from helpers.emulator.services import buckets, nursery, operations
from helpers.emulator.state import State

OF_MODEL = ("displayName", "description", "labels")  # the other fields belong to a version
FORMATS = {
    "supportedDeploymentResourcesTypes": ["DEDICATED_RESOURCES"],
    "supportedInputStorageFormats": ["jsonl", "csv"],
    "supportedOutputStorageFormats": ["jsonl"],
    "supportedExportFormats": [{"id": "custom-trained", "exportableContents": ["ARTIFACT"]}],
}
_writing = threading.Lock()
deploying: dict[tuple[str, str], tuple[str, str]] = {}  # (endpoint, id) → (model, version)


# --- for the other services


def version(state: State, name: str) -> dict:
    """The version a model name means: `…/models/ID`, `…/models/ID@VERSION` or `…/models/ID@ALIAS`.

    Raises:
        ApiError: 404.
    """
    base, _, wanted = name.partition("@")
    model = state.get(base)
    if model is None:
        raise ApiError(404, f"The Model does not exist: {base}.")
    for number, one in model["versions"].items():
        if (wanted or "default") in (number, *one["versionAliases"]):
            return _shown(state, model, number, with_version=bool(wanted))
    raise ApiError(404, f"The Model does not exist: {base}@{wanted}.")


def in_place(name: str, parent: str) -> None:
    """Models are used where they are: same project, same region."""
    if not name.startswith(f"{parent}/models/"):
        raise ApiError(400, f"Model {name} is not in {parent}.")


def artifacts(cloud: Cloud, model: dict) -> Path:
    """This machine's copy of the artifact folder of a version."""
    return cloud.folder / "models" / _model_id(model["name"]) / model["versionId"]


def _model_id(name: str) -> str:
    """Unique over projects and locations, and fit for a folder."""
    _, project, _, location, _, model = name.split("@")[0].split("/")
    return f"{project}.{location}.{model}".replace(":", "_")


def _shown(state: State, model: dict, number: str, *, with_version: bool) -> dict:
    one = model["versions"][number]
    labels = model.get("labels", {}) | one.get("labels", {})
    resource = {k: v for k, v in model.items() if k not in ("versions", "next", "labels")}
    resource |= {k: v for k, v in one.items() if k not in ("labels", "_upload")} | FORMATS
    resource |= {"labels": labels} if labels else {}
    resource["etag"] = etag(resource)
    if with_version:
        resource["name"] += f"@{number}"
    deployed = _deployments(state, model["name"], number)
    resource |= {"deployedModels": deployed} if deployed else {}
    return resource


def _deployments(state: State, name: str, number: str = "") -> list[dict]:
    return [
        {"endpoint": endpoint["name"], "deployedModelId": deployed["id"]}
        for endpoint in state.list("endpoint")
        for deployed in endpoint.get("deployedModels", [])
        if deployed["model"].split("@")[0] == name and number in ("", deployed["modelVersionId"])
    ]


# --- upload


@method("aiplatform.projects.locations.models.upload")
def upload(call: Call) -> dict:
    """Checked now, copied in the operation."""
    parent, body, model = call.path["parent"], call.body, call.body["model"]
    name = body.get("parentModel", "").split("@")[0]
    if name:
        found(call, name)
        in_place(name, parent)
    else:
        name = f"{parent}/models/{body.get('modelId') or call.state.next_id()}"
        if call.state.get(name):
            raise ApiError(409, f"Model {name} already exists; set parent_model for a new version.")
    arguments = {
        "name": name, "model": model, "new": not body.get("parentModel"),
        "key": call.state.next_id(),
    }  # fmt: skip
    return operations.start(
        call, name, upload_model, arguments, metadata="UploadModelOperationMetadata",
        response="UploadModelResponse",
    )  # fmt: skip


@operations.work
def upload_model(cloud: Cloud, name: str, model: dict, new: bool, key: str) -> dict:
    copy = cloud.folder / "models" / f".{key}"
    shutil.rmtree(copy, ignore_errors=True)
    try:
        _copy(cloud, model.get("artifactUri", ""), copy)
        with _writing:
            number = _add(cloud, name, model, new, key, copy)
        nursery.prepare(cloud)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    return {"model": name, "modelVersionId": number}


def _copy(cloud: Cloud, uri: str, to: Path) -> None:
    to.mkdir(parents=True)
    if not uri:
        return
    source = buckets.path_of(cloud, uri)
    if not source.is_dir() or not any(path.is_file() for path in source.rglob("*")):
        raise refused(f'There are no files under "{uri}" to copy.')
    shutil.copytree(source, to, dirs_exist_ok=True)


def _add(cloud: Cloud, name: str, model: dict, new: bool, key: str, copy: Path) -> str:
    record, moment = cloud.state.get(name), now()
    for number, one in (record or {"versions": {}})["versions"].items():
        if one["_upload"] == key:
            return number  # done before the kill
    if record is None and not new:
        raise ApiError(404, f"The Model does not exist: {name}.")
    if record is not None and new:
        raise ApiError(409, f"Model {name} already exists.")
    parent = name.rpartition("/models/")[0]
    if record is None:
        record = {"name": name, "createTime": moment, "versions": {}, "next": 1}
        record |= {key: model[key] for key in OF_MODEL if key in model}
    number = str(record["next"])
    one = {k: v for k, v in model.items() if k not in (*OF_MODEL, "name", "etag")}
    one["containerSpec"] = {"ports": [{"containerPort": 8080}]} | model["containerSpec"]
    one |= {
        "versionId": number, "versionAliases": [], "versionCreateTime": moment,
        "versionUpdateTime": moment, "_upload": key,
    }  # fmt: skip
    if not new and "labels" in model:
        one["labels"] = model["labels"]
    aliases = model.get("versionAliases", []) + ([] if record["versions"] else ["default"])
    record |= {"next": record["next"] + 1, "updateTime": moment}
    record["versions"][number] = one
    _move_aliases(record, number, aliases)
    folder = artifacts(cloud, {"name": name, "versionId": number})
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    copy.rename(folder)
    cloud.state.put("model", name, record, parent=parent)
    return number


def _move_aliases(record: dict, number: str, aliases: list[str]) -> None:
    """An alias means one version: giving it to one takes it from the others."""
    given = [alias for alias in aliases if not alias.startswith("-")]
    removed = {alias.removeprefix("-") for alias in aliases if alias.startswith("-")}
    for other, one in record["versions"].items():
        gone = removed if other == number else set(given)
        one["versionAliases"] = [a for a in one["versionAliases"] if a not in gone]
    mine = record["versions"][number]["versionAliases"]
    mine += [alias for alias in dict.fromkeys(given) if alias not in mine]


# --- the other methods


@method("aiplatform.projects.locations.models.get")
def get(call: Call) -> dict:
    return version(call.state, call.path["name"])


@method("aiplatform.projects.locations.models.list")
def listed(call: Call) -> dict:
    models = call.state.list("model", call.path["parent"])[::-1]
    return page(call, [version(call.state, model["name"]) for model in models], "models")


@method("aiplatform.projects.locations.models.listVersions")
def list_versions(call: Call) -> dict:
    model = found(call, call.path["name"].split("@")[0])
    shown = [_shown(call.state, model, n, with_version=True) for n in model["versions"]]
    return page(call, shown, "models")


@method("aiplatform.projects.locations.models.patch")
def patched(call: Call) -> dict:
    """`…/models/ID` changes the model, `…/models/ID@VERSION` that version."""
    name, mask = call.path["name"], call.query.get("updateMask", "")
    base, _, wanted = name.partition("@")
    with _writing:
        check_etag(call, version(call.state, name)["etag"])
        if wanted in ("", "-"):
            record = patch(found(call, base), call.body, mask, set(OF_MODEL))
        else:
            record, number = found(call, base), version(call.state, name)["versionId"]
            one = patch(
                record["versions"][number], call.body, mask, {"versionDescription", "labels"}
            )
            record["versions"][number] = one | {"versionUpdateTime": one.pop("updateTime")}
        call.state.update(base, lambda current: record)
    return version(call.state, name)


@method("aiplatform.projects.locations.models.mergeVersionAliases")
def merge_version_aliases(call: Call) -> dict:
    name = call.path["name"]
    base, _, wanted = name.partition("@")
    if not wanted:
        raise ApiError(400, f"{name} must name a version: {name}@VERSION.")
    with _writing:
        record, number = found(call, base), version(call.state, name)["versionId"]
        _move_aliases(record, number, call.body["versionAliases"])
        record["versions"][number]["versionUpdateTime"] = now()
        call.state.update(base, lambda current: record)
    return version(call.state, f"{base}@{number}")


@method("aiplatform.projects.locations.models.delete")
def delete(call: Call) -> dict:
    name = call.path["name"].split("@")[0]
    with _writing:
        model = found(call, name)
        _refuse_deployed(call, name)
        call.state.delete(name)
    for number in model["versions"]:
        shutil.rmtree(artifacts(call.cloud, {"name": name, "versionId": number}).parent)
        break
    return operations.deleted(call, name)


@method("aiplatform.projects.locations.models.deleteVersion")
def delete_version(call: Call) -> dict:
    base, _, wanted = call.path["name"].partition("@")
    with _writing:
        record = found(call, base)
        if wanted not in record["versions"]:
            raise ApiError(
                404, f"The Model does not exist: {base}@{wanted}; expected a version ID."
            )
        if "default" in record["versions"][wanted]["versionAliases"]:
            raise refused(
                f"Version {wanted} is the default one; move the default alias, or delete the Model."
            )
        _refuse_deployed(call, base, wanted)
        del record["versions"][wanted]
        call.state.update(base, lambda current: record)
    shutil.rmtree(artifacts(call.cloud, {"name": base, "versionId": wanted}))
    return operations.deleted(call, base)


def _refuse_deployed(call: Call, name: str, number: str = "") -> None:
    places = [place["endpoint"] for place in _deployments(call.state, name, number)]
    places += [key[0] for key, (m, n) in deploying.items() if m == name and number in ("", n)]
    if places:
        listed = ", ".join(dict.fromkeys(places))
        raise refused(
            f'The Model "{name}" is deployed or being deployed at the following Endpoint(s): '
            f"{listed}."
        )
