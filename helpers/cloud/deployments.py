"""Endpoints as Google has them: made, given models and shares of the traffic, taken down.

Every step is safe to repeat, and none touches what another call put there.
"""

import uuid
import zlib

from helpers.cloud.client import RETRIES, Session, pause
from helpers.cloud.names import LABELS, resource_id
from helpers.cloud.resources import named, settle
from helpers.errors import CloudError

AT_ZERO = ("minReplicaCount", "initialReplicaCount", "scaleToZeroSpec")


def open_endpoint(session: Session, name: str) -> tuple[dict, bool]:
    """The endpoint of that name, and whether this call made it.

    Raises:
        CloudError: an endpoint of another name has the id of this one.
    """
    found = named(session, "endpoints", name)
    if found:
        return found, False
    endpoints, endpoint_id = session.collection("endpoints"), resource_id(name)
    mark = {"made-in": uuid.uuid4().hex}  # tells this call's endpoint from anybody else's
    body = {"displayName": name, "labels": LABELS | mark, "dedicatedEndpointEnabled": True}
    attempt = 0
    while True:
        made = endpoints.create(parent=session.parent, endpointId=endpoint_id, body=body)
        operation = session.call(made, repeatable=True, unless=409 if attempt < RETRIES else 0)
        if operation:
            session.wait(operation)
        request = endpoints.get(name=f"{session.parent}/endpoints/{endpoint_id}")
        found = session.call(request, unless=404)
        if found:
            break
        pause(attempt)  # another notebook makes it, or deletes it, at this moment
        attempt += 1
    if found["displayName"] != name:
        raise CloudError(
            f'Endpoint {endpoint_id} in {session.location} is "{found["displayName"]}" and not '
            f'"{name}"; it stays as it is. Choose another ENDPOINT_NAME.',
            status=409,
        )
    return found, mark.items() <= found.get("labels", {}).items()


def deploy(session: Session, endpoint: str, wanted: dict, split: dict, *, version: str) -> None:
    """Deploy a model, once, and wait until it serves.

    Args:
        wanted: a DeployedModel with an id and a model's version.
        split: the traffic afterwards; "0" is the model being deployed.
        version: of the API.
    Source: REST projects.locations.endpoints.deployModel
    """
    body = {"deployedModel": wanted, "trafficSplit": split}

    def find() -> dict | None:
        settle(session, "endpoints", endpoint)
        resource = session.call(session.collection("endpoints").get(name=endpoint))
        for deployed in resource.get("deployedModels", []):
            if deployed["id"] == wanted["id"] and is_version(deployed, wanted["model"]):
                return {"done": True}
        return None

    request = session.collection("endpoints", version).deployModel(endpoint=endpoint, body=body)
    session.wait(session.create(request, find), version=version)


def deployed_id(model: str, running: list[dict]) -> str:
    """Chosen from the version `…/models/ID@N`, so that a repeated deploy meets itself (1-10
    digits)."""
    taken = {deployed["id"]: is_version(deployed, model) for deployed in running}
    number = zlib.crc32(model.encode()) % 10**9 + 1
    while not taken.get(str(number), True):
        number += 1
    return str(number)


def is_version(deployed: dict, model: str) -> bool:
    """Whether a deployed model is of that version; Google's names may hold a project's number."""
    name = f"{deployed['model'].split('@')[0]}@{deployed['modelVersionId']}"
    return name.rsplit("/", 1)[-1] == model.rsplit("/", 1)[-1]


def at_zero(idle_shutdown_s: int) -> dict:
    """Resources that stop after so long without a request. Source: v1beta1 ScaleToZeroSpec"""
    rest = {"idleScaledownPeriod": f"{idle_shutdown_s}s", "minScaleupPeriod": "300s"}
    return {
        "minReplicaCount": 0, "maxReplicaCount": 1, "initialReplicaCount": 1,
        "scaleToZeroSpec": rest,
    }  # fmt: skip


def keep_up(session: Session, endpoint: str) -> list[dict]:
    """Keep the machines of all models up: versions that share an endpoint can't scale to zero.

    Returns:
        The deployed models that were changed, as they were; see `let_rest`.
    """
    resource = session.call(session.collection("endpoints", "v1beta1").get(name=endpoint))
    changed = []
    for deployed in resource.get("deployedModels", []):
        pool = deployed.get("dedicatedResources", {"minReplicaCount": 1})
        if not pool.get("minReplicaCount"):
            kept = {"machineSpec": pool["machineSpec"], "minReplicaCount": 1}
            _change_pool(session, endpoint, deployed["id"], kept)
            changed.append(deployed)
    return changed


def let_rest(session: Session, endpoint: str, changed: list[dict]) -> None:
    """Give deployed models back the rest that `keep_up` took from them."""
    for deployed in changed:
        _change_pool(session, endpoint, deployed["id"], deployed["dedicatedResources"])


def _change_pool(session: Session, endpoint: str, deployed_id: str, pool: dict) -> None:
    fields = {key: pool[key] for key in ("machineSpec", *AT_ZERO) if key in pool}
    body = {
        "deployedModel": {"id": deployed_id, "dedicatedResources": fields},
        "updateMask": ",".join(f"dedicatedResources.{key}" for key in AT_ZERO),
    }
    endpoints = session.collection("endpoints", "v1beta1")
    request = endpoints.mutateDeployedModel(endpoint=endpoint, body=body)
    session.wait(session.call(request, repeatable=True), version="v1beta1")


def undeploy(session: Session, endpoint: str, body: dict) -> None:
    """Take a deployed model off an endpoint, with a body of `undeployModel`."""
    endpoints = session.collection("endpoints")

    def find() -> dict | None:
        settle(session, "endpoints", endpoint)
        deployed = session.call(endpoints.get(name=endpoint)).get("deployedModels", [])
        there = any(one["id"] == body["deployedModelId"] for one in deployed)
        return None if there else {"done": True}

    session.wait(session.create(endpoints.undeployModel(endpoint=endpoint, body=body), find))


def delete_endpoint(session: Session, endpoint: str) -> None:
    """Undeploy every model of an endpoint, then delete it, unless it is gone already."""
    endpoints = session.collection("endpoints")
    try:
        resource = session.call(endpoints.get(name=endpoint))
        left = [deployed["id"] for deployed in resource.get("deployedModels", [])]
        while left:
            body = {"deployedModelId": left.pop()}
            if left:  # only the last one may leave while it has traffic
                body["trafficSplit"] = dict.fromkeys(left, 0) | {left[0]: 100}
            undeploy(session, endpoint, body)
        session.wait(session.call(endpoints.delete(name=endpoint)))
    except CloudError as error:
        if error.status != 404:
            raise


def delete_model(session: Session, model: str) -> None:
    """Delete a model with all its versions; done before is fine."""
    operation = session.call(session.collection("models").delete(name=model), unless=404)
    if operation:
        session.wait(operation)


def delete_if_empty(session: Session, endpoint: str) -> None:
    """Delete an endpoint on which a deployment failed, unless something else is on it by now."""
    try:
        session.wait(session.call(session.collection("endpoints").delete(name=endpoint)))
    except CloudError as error:
        if error.status not in (400, 404, 409):  # 400: a model is deployed, or being deployed
            raise


def set_traffic(session: Session, endpoint: str, split: dict[str, int]) -> None:
    """Share an endpoint's requests between its deployed models, by their ids; sums to 100."""
    body = {"trafficSplit": split}
    endpoints = session.collection("endpoints")
    session.call(endpoints.patch(name=endpoint, updateMask="trafficSplit", body=body))


def share(current: dict[str, int], deployed_id: str, percent: int) -> dict[str, int]:
    """A traffic split in which one has `percent` and the others keep their shares of the rest."""
    others = {key: share for key, share in current.items() if key != deployed_id}
    total, left = sum(others.values()), 100 - percent
    if not total:
        return dict.fromkeys(others, 0) | {deployed_id: 100}
    split = {key: share * left // total for key, share in others.items()}
    largest = max(split, key=split.get)
    split[largest] += left - sum(split.values())
    return split | {deployed_id: percent}
