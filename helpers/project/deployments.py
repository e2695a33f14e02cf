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


def put_on(
    session: Session, name: str, model: str, *, title: str, machine_type: str, percent: int,
    idle_s: int,
) -> None:  # fmt: skip
    """Put a version on the endpoint of that name, which is made when there is none.

    Args:
        model: the version's resource name, with `@N`.
        title: what people call it.
        percent: its share of the traffic.
        idle_s: without a request for so long its machine stops; 0 keeps it up.
    Raises:
        CloudError: it did not start; what this call made is removed again.
    Source: REST projects.locations.endpoints.deployModel
    """
    while True:
        endpoint, created = _open(session, name)
        try:
            return _put_on(session, endpoint, model, title, machine_type, percent, idle_s)
        except CloudError as error:
            if created and error.status != 401:
                _delete_if_empty(session, endpoint["name"])
            # 404 of an endpoint: whoever had made it failed meanwhile, and removed it
            if error.status != 404 or created or named(session, "endpoints", name):
                raise


def _put_on(
    session: Session, endpoint: dict, model: str, title: str, machine_type: str, percent: int,
    idle_s: int,
) -> None:  # fmt: skip
    uri, running = endpoint["name"], endpoint.get("deployedModels", [])
    chosen = _deployed_id(model, running)
    split = _share(endpoint.get("trafficSplit", {}), chosen, percent)
    if chosen in [deployed["id"] for deployed in running]:
        return set_traffic(session, uri, split)
    changed = _keep_up(session, uri) if running else []
    if changed:
        bill = ", and bill," * (session.cloud == "google")
        print(f"Two versions can't scale to zero: both stay up{bill} until cleanup.")
    rests = idle_s > 0 and not running
    if rests:
        bill = ", and the bill" * (session.cloud == "google")
        print(f"After {idle_s} s without a request its machine stops{bill}.")
    print(f'Deploying {title} to endpoint "{endpoint["displayName"]}" ({machine_type}) …')
    pool = _at_zero(idle_s) if rests else {"minReplicaCount": 1, "maxReplicaCount": 1}
    wanted = {
        "id": chosen, "model": model, "displayName": title,
        "dedicatedResources": {"machineSpec": {"machineType": machine_type}} | pool,
    }  # fmt: skip
    if rests:
        wanted["enableContainerLogging"] = True  # v1 logs unless told not to, v1beta1 does not
    split = {"0" if key == chosen else key: value for key, value in split.items()}
    try:
        return _deploy(session, uri, wanted, split, version="v1beta1" if rests else "v1")
    except CloudError as error:
        if error.status != 401:
            _let_rest(session, uri, changed)
        if rests and error.status in (400, 404, 501) and error.method:
            raise _no_rest(error, idle_s) from error
        raise


def _no_rest(error: CloudError, idle_s: int) -> CloudError:
    """A refusal that may be about scaling to zero, which is in preview."""
    longer = ""
    if idle_s < 3600:
        longer = "Google's page names 300 s and 3600 s as the least: try idle_shutdown_s=3600. "
    return CloudError(
        f"Scaling to zero was refused: {error} {longer}If that is why, always_on=True does "
        "without it: the machine then bills until helpers.cleanup.",
        status=error.status,
        method=error.method,
    )


def _open(session: Session, name: str) -> tuple[dict, bool]:
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


def _deploy(session: Session, endpoint: str, wanted: dict, split: dict, *, version: str) -> None:
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


def _deployed_id(model: str, running: list[dict]) -> str:
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


def _at_zero(idle_shutdown_s: int) -> dict:
    """Resources that stop after so long without a request. Source: v1beta1 ScaleToZeroSpec"""
    rest = {"idleScaledownPeriod": f"{idle_shutdown_s}s", "minScaleupPeriod": "300s"}
    return {
        "minReplicaCount": 0, "maxReplicaCount": 1, "initialReplicaCount": 1,
        "scaleToZeroSpec": rest,
    }  # fmt: skip


def _keep_up(session: Session, endpoint: str) -> list[dict]:
    """Keep the machines of all models up: versions that share an endpoint can't scale to zero.

    Returns:
        The deployed models that were changed, as they were; see `_let_rest`.
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


def _let_rest(session: Session, endpoint: str, changed: list[dict]) -> None:
    """Give deployed models back the rest that `_keep_up` took from them."""
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
    """Delete a model with all its versions; one that is gone already is no failure."""
    operation = session.call(session.collection("models").delete(name=model), unless=404)
    if operation:
        session.wait(operation)


def _delete_if_empty(session: Session, endpoint: str) -> None:
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


def address(session: Session, endpoint: str, host: str) -> str:
    """Where predictions are asked; `host` is a dedicated endpoint's own, or ""."""
    root = session.endpoint or (f"https://{host}" if host else session.root("aiplatform"))
    return f"{root}/v1/{endpoint}"


def older(traffic: dict[str, int]) -> str:
    """The newest version older than the one that has most of the traffic; "" when there is none.

    Args:
        traffic: version -> its share.
    """
    serving = max(traffic, key=traffic.get, default="0")
    return max((v for v in traffic if int(v) < int(serving)), key=int, default="")


def without(traffic: dict[str, int], gone: str) -> dict[str, int]:
    """A traffic split after one has left: the others keep their proportions."""
    split = _share(traffic, gone, 0)
    del split[gone]
    if split and not sum(split.values()):
        split[next(iter(split))] = 100
    return split


def _share(current: dict[str, int], deployed_id: str, percent: int) -> dict[str, int]:
    """A traffic split in which one has `percent` and the others keep their shares of the rest."""
    others = {key: share for key, share in current.items() if key != deployed_id}
    total, left = sum(others.values()), 100 - percent
    if not total:
        return dict.fromkeys(others, 0) | {deployed_id: 100}
    split = {key: share * left // total for key, share in others.items()}
    largest = max(split, key=split.get)
    split[largest] += left - sum(split.values())
    return split | {deployed_id: percent}
