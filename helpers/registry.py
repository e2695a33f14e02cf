"""The model registry: versions of a model by name, number and alias."""

import functools
import json
import re
from dataclasses import dataclass, field
from html import escape

from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.cloud.images import serving_image, serving_version
from helpers.cloud.links import console
from helpers.cloud.names import LABELS, check_labels, resource_id
from helpers.cloud.resources import missing, named, settle
from helpers.errors import CloudError, NotFoundError, SettingError, near
from helpers.looks import model_card

SERVED_NAME = "model"  # TensorFlow Serving's own name for it, part of its routes
ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")


@dataclass(frozen=True)
class Model:
    """One version of a registered model; `resource_name` ends in `@VERSION`."""

    session: Session = field(repr=False)
    name: str
    version: str
    aliases: tuple[str, ...]
    artifact_uri: str
    resource_name: str

    @functools.cached_property
    def instance_schema(self) -> dict:
        """The model's inputs: an OpenAPI object, one property a column."""
        return _schema(self, "instance")

    @functools.cached_property
    def prediction_schema(self) -> dict:
        """The model's answer: an OpenAPI number or object."""
        return _schema(self, "prediction")

    @property
    def metrics(self) -> dict:
        """What the job that made it measured."""
        uri = self.artifact_uri.rstrip("/").rsplit("/", 1)[0] + "/metrics.json"
        return json.loads(storage.read_bytes(self.session, uri))

    @property
    def card(self) -> str:
        """The page `register` wrote beside it (model_card.py), as Markdown."""
        uri = self.artifact_uri.rstrip("/").rsplit("/", 1)[0] + "/card.md"
        return storage.read_bytes(self.session, uri).decode()

    def _repr_html_(self) -> str:
        link = console(self.session, "model", self.resource_name.rsplit("/", 1)[-1].split("@")[0])
        return (
            f'Model <a href="{escape(link)}">{escape(self.name)}</a> version {self.version} '
            f"({escape(', '.join(self.aliases))})"
        )


def register(
    session: Session,
    job,
    *,
    name: str,
    aliases: tuple[str, ...] | list[str] = (),
    labels: dict[str, str] | None = None,
) -> Model:
    """Put a job's model into the registry as the next version of `name`.

    Writes its model card beside it. The same model registered again gives the version that is
    there already.

    Args:
        job: a finished `Job`, or the gs:// address of a model folder (with `1/` in it).
        name: display name; the first registration creates the model.
        aliases: beside the automatic v1, v2, …
    Raises:
        NotFoundError: there is no exported model at that address.
        SettingError: an alias or the pair of TensorFlow versions is not usable.
    Source: REST v1 projects.locations.models.upload
    """
    artifact_uri = (job if isinstance(job, str) else job.model_uri).rstrip("/") + "/"
    for alias in aliases:
        if not ALIAS.fullmatch(alias):
            raise SettingError(
                f'Alias "{alias}" is not usable; expected letters, digits, "-", as in v1.'
            )
    if not storage.list_uris(session, f"{artifact_uri}1/saved_model.pb"):
        raise NotFoundError(f"No exported model in {artifact_uri} (1/saved_model.pb is missing).")
    _check_serving(session, artifact_uri)

    check_labels(labels or {})
    models = session.collection("models")
    existing = named(session, "models", name)
    if existing:
        for version in _versions(session, existing["name"]):
            if version.get("artifactUri") == artifact_uri:
                return _with_aliases(session, version, name, aliases)
    image = serving_image(session)
    description, about = model_card.write(session, artifact_uri)
    body = {
        "model": {
            "displayName": name,
            "artifactUri": artifact_uri,
            "versionDescription": description,
            "labels": about | (labels or {}) | LABELS,
            "versionAliases": ["default", *aliases],
            "containerSpec": _serving_container(image),
            "predictSchemata": {
                "instanceSchemaUri": f"{artifact_uri}1/assets.extra/instance.yaml",
                "predictionSchemaUri": f"{artifact_uri}1/assets.extra/prediction.yaml",
            },
        }
    }
    response = _upload(session, body, existing)
    version = session.call(models.get(name=f"{response['model']}@{response['modelVersionId']}"))
    return _with_aliases(session, version, name, [f"v{response['modelVersionId']}"])


def find_model(session: Session, name: str, version: str | None = None) -> Model:
    """A registered model by display name.

    Args:
        version: a version id ("2"), an alias ("v2", "candidate"), or None for the default one.
    Raises:
        NotFoundError: no such model or version; what exists is named.
    """
    resource = named(session, "models", name)
    if not resource:
        raise missing(session, "models", name, "Run 02_train.ipynb first.")
    for found in _versions(session, resource["name"]):
        if (version or "default") in (found["versionId"], *found.get("versionAliases", [])):
            return as_model(session, found, name)
    known = [a for v in _versions(session, resource["name"]) for a in v.get("versionAliases", [])]
    raise NotFoundError(f'Model "{name}" has no version "{version}".{near(version or "", known)}')


def delete_model(session: Session, model: str) -> None:
    """Delete a model with all its versions; done before is fine."""
    operation = session.call(session.collection("models").delete(name=model), unless=404)
    if operation:
        session.wait(operation)


def _serving_container(image: str) -> dict:
    return {
        "imageUri": image,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": [
            f"--model_name={SERVED_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",
            "--rest_api_port=8080",
            "--port=8500",
            "--file_system_poll_wait_seconds=31540000",
        ],
        "ports": [{"containerPort": 8080}],
        "predictRoute": f"/v1/models/{SERVED_NAME}:predict",
        "healthRoute": f"/v1/models/{SERVED_NAME}",
    }


def _check_serving(session: Session, artifact_uri: str) -> None:
    """A server older than the exporter can't be trusted to load its models."""
    uri = f"{artifact_uri}1/assets.extra/instance.yaml"
    try:
        exporter = json.loads(storage.read_bytes(session, uri)).get("x-tensorflow", "")
    except NotFoundError:
        return
    server = serving_version()
    minor = [tuple(map(int, v.split(".")[:2])) for v in (exporter, server) if v]
    if len(minor) == 2 and minor[1] < minor[0]:
        raise SettingError(
            f"The model was exported by TensorFlow {exporter}; TensorFlow Serving "
            f"{server} is older. Train with TensorFlow {server} or name a newer "
            "server in the environment variable SERVING_VERSION."
        )


def _upload(session: Session, body: dict, existing: dict | None) -> dict:
    """Upload a version, once; of a model that another notebook made in the meantime as well."""
    models, name = session.collection("models"), body["model"]["displayName"]
    if existing:
        target = existing["name"]
        body = body | {"parentModel": target}
    else:
        body = body | {"modelId": resource_id(name)}
        target = f"{session.parent}/models/{body['modelId']}"

    def find() -> dict | None:
        return _uploaded(session, target, name, body["model"]["artifactUri"])

    try:
        return session.wait(session.create(models.upload(parent=session.parent, body=body), find))
    except CloudError as error:
        made = named(session, "models", name) if error.status == 409 and not existing else None
        if made is None:
            raise
    del body["modelId"]
    return _upload(session, body, made)


def _uploaded(session: Session, model: str, name: str, artifact_uri: str) -> dict | None:
    """The version that an upload made whose answer was lost, as its operation would give it."""
    settle(session, "models", model)
    try:
        versions = _versions(session, model)
    except CloudError as error:
        if error.status != 404:
            raise
        return None
    for version in versions:
        if (version["displayName"], version.get("artifactUri")) == (name, artifact_uri):
            response = {"model": model, "modelVersionId": version["versionId"]}
            return {"done": True, "response": response}
    return None


def _versions(session: Session, model: str) -> list[dict]:
    models = session.collection("models")
    request = models.listVersions(name=model.split("@")[0])
    return list(session.pages(request, models.listVersions_next, "models"))


def _with_aliases(session: Session, version: dict, name: str, aliases) -> Model:
    lacking = [a for a in aliases if a not in version.get("versionAliases", [])]
    if lacking:
        models = session.collection("models")
        resource = f"{version['name'].split('@')[0]}@{version['versionId']}"
        body = {"versionAliases": lacking}
        version = session.call(
            models.mergeVersionAliases(name=resource, body=body), repeatable=True
        )
    return as_model(session, version, name)


def _schema(model: Model, kind: str) -> dict:
    uri = f"{model.artifact_uri}1/assets.extra/{kind}.yaml"
    return json.loads(storage.read_bytes(model.session, uri))


def as_model(session: Session, resource: dict, name: str) -> Model:
    version = resource["versionId"]
    return Model(
        session, name, version, tuple(resource.get("versionAliases", [])),
        resource["artifactUri"], f"{resource['name'].split('@')[0]}@{version}",
    )  # fmt: skip
