"""The model registry: versions of a model by name, number and alias."""

import functools
import importlib
import re
import tempfile
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import pandas as pd

from helpers.cloud import images, storage
from helpers.cloud.client import Session
from helpers.cloud.links import console
from helpers.cloud.names import LABELS, beside, check_aliases, check_labels, number
from helpers.cloud.resources import missing, named
from helpers.errors import NotFoundError, near
from helpers.inputs import artifact, examples
from helpers.inputs.signature import Signature
from helpers.looks import model_card
from helpers.project.versions import upload, versions, with_aliases

SCHEMATA = {"instance": "instanceSchemaUri", "prediction": "predictionSchemaUri"}


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
    def folder(self) -> str:
        """The SavedModel's own folder, `gs://…/model/1/`."""
        return artifact.version_folder(self.session, self.artifact_uri) or f"{self.artifact_uri}1/"

    @functools.cached_property
    def signatures(self) -> dict[str, Signature]:
        """The ways to call it, by name, as its saved_model.pb has them."""
        return artifact.saved_model(self.session, self.folder).signatures

    @functools.cached_property
    def instance_schema(self) -> dict:
        """A table's columns: an OpenAPI object, one property a column; {} for other models."""
        return artifact.described(self.session, self.folder, "instance")

    @functools.cached_property
    def prediction_schema(self) -> dict:
        """A table's answer: an OpenAPI number or object; {} for other models."""
        return artifact.described(self.session, self.folder, "prediction")

    @property
    def metrics(self) -> dict:
        """What the job that made it measured; {} where it left no metrics.json."""
        return artifact.measured(self.session, self.artifact_uri)

    @property
    def examples(self) -> examples.Examples:
        """Held-out rows with their truth, `.rows` and `.truth`, that travel with it; none is no
        error, but `len(examples)` is 0 then."""
        return artifact.held_out(self.session, self.artifact_uri, self.instance_schema)

    @property
    def example(self):
        """One row to try, as `helpers.predict` takes it; None where nothing is known."""
        if self.instance_schema.get("example"):
            return pd.DataFrame([self.instance_schema["example"]])
        return self.examples.first()

    @property
    def instance(self):
        """`example` in TensorFlow Serving's row form, for `helpers.predict_json`."""
        return examples.row_form(self.example, self.instance_schema)

    @property
    def card(self) -> str:
        """The page `register` wrote beside it (model_card.py), as Markdown."""
        uri = beside(self.artifact_uri, artifact.CARD)
        return storage.read_bytes(self.session, uri).decode()

    def _repr_html_(self) -> str:
        link = console(self.session, "model", number(self.resource_name))
        return (
            f'Model <a href="{escape(link)}">{escape(self.name)}</a> version {self.version} '
            f"({escape(', '.join(self.aliases))})"
        )


def register(
    session: Session,
    source,
    *,
    name: str,
    aliases: tuple[str, ...] | list[str] = (),
    labels: dict[str, str] | None = None,
) -> Model:
    """Put a model into the registry as the next version of `name`.

    Writes its model card beside it. The same model registered again gives the version that is
    there already.

    Args:
        source: a finished `Job`; the address or folder of a SavedModel (with `1/` in it, or the
            SavedModel's own); a `.keras` file; or a Keras model in memory. What is not in a bucket
            yet is exported (`helpers.export`) and uploaded.
        name: display name; the first registration creates the model.
        aliases: beside the automatic v1, v2, …
    Raises:
        NotFoundError: there is no exported model at that address.
        SettingError: an alias, the source or the pair of TensorFlow versions is not usable.
        DataError: the SavedModel has no signatures.
    Source: REST v1 projects.locations.models.upload
    """
    check_aliases(aliases)
    check_labels(labels or {})
    artifact_uri = getattr(source, "model_uri", None) or _stored(session, source, name)
    artifact_uri = artifact_uri.rstrip("/") + "/"
    folder = artifact.version_folder(session, artifact_uri)
    if not folder:
        raise artifact.nothing(session, artifact_uri)
    saved = artifact.checked(session, folder, images.serving_version())

    models = session.collection("models")
    existing = named(session, "models", name)
    if existing:
        for version in versions(session, existing["name"]):
            if version.get("artifactUri") == artifact_uri:
                return as_model(session, with_aliases(session, version, aliases), name)
    schemas = {kind: artifact.described(session, folder, kind) for kind in SCHEMATA}
    description, about = model_card.write(session, artifact_uri, saved, **schemas)
    body = {
        "model": {
            "displayName": name,
            "artifactUri": artifact_uri,
            "versionDescription": description,
            "labels": about | (labels or {}) | LABELS,
            "versionAliases": ["default", *aliases],
            "containerSpec": images.serving_container(images.serving_image(session)),
        }
    }
    there = {SCHEMATA[kind]: f"{folder}assets.extra/{kind}.yaml" for kind in schemas
             if schemas[kind]}  # fmt: skip
    if there:
        body["model"]["predictSchemata"] = there
    response = upload(session, body, existing)
    version = session.call(models.get(name=f"{response['model']}@{response['modelVersionId']}"))
    version = with_aliases(session, version, [f"v{response['modelVersionId']}"])
    return as_model(session, version, name)


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
    for found in versions(session, resource["name"]):
        if (version or "default") in (found["versionId"], *found.get("versionAliases", [])):
            return as_model(session, found, name)
    known = [a for v in versions(session, resource["name"]) for a in v.get("versionAliases", [])]
    raise NotFoundError(f'Model "{name}" has no version "{version}".{near(version or "", known)}')


def _stored(session: Session, source, name: str) -> str:
    """The address of a model's folder in the bucket, put there if it is not."""
    address = isinstance(source, str) and source.startswith("gs://")
    uri = str(source).rstrip("/")
    if address and not uri.endswith(".keras"):
        uri = uri[: -len(uri.rpartition("/")[2]) - 1] if re.search(r"/\d+$", uri) else uri
        if not storage.list_uris(session, f"{uri}/saved_model.pb"):
            return uri
    with tempfile.TemporaryDirectory() as folder:
        if address:
            at = Path(folder, uri.rpartition("/")[2])
            fetch = storage.download_file if at.suffix == ".keras" else storage.download_folder
            source = fetch(session, uri, at)
        if not (isinstance(source, str | Path) and Path(source).is_dir()):
            # Only a model that is no SavedModel yet needs TensorFlow.
            export = importlib.import_module("helpers.learning.export").export
            source = export(source, folder=Path(folder, "model")).parent
        return artifact.store(session, Path(source), name)


def as_model(session: Session, resource: dict, name: str) -> Model:
    version = resource["versionId"]
    return Model(
        session, name, version, tuple(resource.get("versionAliases", [])),
        resource["artifactUri"], f"{resource['name'].split('@')[0]}@{version}",
    )  # fmt: skip
