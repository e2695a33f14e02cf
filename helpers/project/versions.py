"""Versions of a model in the registry: uploaded once, whatever answer was lost, and listed."""

from collections.abc import Iterable

from helpers.cloud.client import Session
from helpers.cloud.names import resource_id
from helpers.cloud.resources import named, settle
from helpers.errors import CloudError


def upload(session: Session, body: dict, existing: dict | None) -> dict:
    """Upload a version, once; also when another notebook makes the model at the same moment."""
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
    return upload(session, body, made)


def versions(session: Session, model: str) -> list[dict]:
    """Every version of a model, with its aliases."""
    models = session.collection("models")
    request = models.listVersions(name=model.split("@")[0])
    return list(session.pages(request, models.listVersions_next, "models"))


def with_aliases(session: Session, version: dict, aliases: Iterable[str]) -> dict:
    """A version with these aliases beside those it has."""
    lacking = [alias for alias in aliases if alias not in version.get("versionAliases", [])]
    if not lacking:
        return version
    name = f"{version['name'].split('@')[0]}@{version['versionId']}"
    request = session.collection("models").mergeVersionAliases(
        name=name, body={"versionAliases": lacking}
    )
    return session.call(request, repeatable=True)


def _uploaded(session: Session, model: str, name: str, artifact_uri: str) -> dict | None:
    """The version that an upload made whose answer was lost, as its operation would give it."""
    settle(session, "models", model)
    try:
        there = versions(session, model)
    except CloudError as error:
        if error.status != 404:
            raise
        return None
    for version in there:
        if (version["displayName"], version.get("artifactUri")) == (name, artifact_uri):
            response = {"model": model, "modelVersionId": version["versionId"]}
            return {"done": True, "response": response}
    return None
