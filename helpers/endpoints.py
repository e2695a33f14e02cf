"""Put model versions on an endpoint, share its traffic between them, take them off."""

import uuid
import zlib
from dataclasses import dataclass, field
from html import escape

from helpers.cloud.client import RETRIES, Session, pause
from helpers.cloud.jobs import check
from helpers.cloud.links import console
from helpers.cloud.resources import LABELS, missing, named, resource_id, settle
from helpers.errors import CloudError, NotDeployedError, SettingError
from helpers.registry import Model, as_model


@dataclass(frozen=True)
class Endpoint:
    """An address that answers predictions.

    `traffic` and `models` are by version id, as they were when the object was made.
    """

    session: Session = field(repr=False)
    name: str
    resource_name: str
    url: str
    host: str
    traffic: dict[str, int]
    models: dict[str, Model]

    @property
    def model(self) -> Model:
        """The version with the most traffic.

        Raises:
            NotDeployedError: nothing serves here.
        """
        if not self.traffic:
            raise NotDeployedError(
                f'No model serves on endpoint "{self.name}". Run 03_deploy.ipynb.'
            )
        return self.models[max(self.traffic, key=self.traffic.get)]

    def _repr_html_(self) -> str:
        link = console(self.session, "endpoint", self.resource_name.rsplit("/", 1)[-1])
        shares = ", ".join(f"version {v}: {share} %" for v, share in self.traffic.items())
        return f'Endpoint <a href="{escape(link)}">{escape(self.name)}</a> · {escape(shares)}'


def deploy(
    session: Session,
    model: Model,
    *,
    name: str = "",
    machine_type: str = "n1-standard-2",
    traffic_percent: int = 100,
    idle_shutdown_s: int = 3600,
    always_on: bool = False,
) -> Endpoint:
    """Serve a model version on an endpoint, with one machine; safe to repeat.

    Args:
        name: the endpoint's display name; "" takes the model's.
        traffic_percent: this version's share; the versions running there keep the rest, and the
            first one gets all.
        idle_shutdown_s: without a request for so long, the machine stops and with it the bill;
            the next request starts it again, which takes minutes. Google does this for one version
            alone: beside another one, both stay up, and this is printed.
        always_on: keep the machine up, and the bill, until `cleanup`.
    Raises:
        CloudError: it did not start; what this call made is removed again.
    Source: REST v1beta1 (with always_on: v1) projects.locations.endpoints.deployModel
    """
    name = name or model.name
    check(machine_type, {})
    if not 0 < traffic_percent <= 100:
        raise SettingError(f"traffic_percent={traffic_percent}; expected 1 to 100.")
    if not 300 <= idle_shutdown_s <= 28_800:
        raise SettingError(
            f"idle_shutdown_s={idle_shutdown_s}; expected 300 to 28800 seconds, or always_on=True."
        )
    resource, created = named(session, "endpoints", name), False
    if resource is None:
        resource, created = _create_endpoint(session, name)
    running = resource.get("deployedModels", [])
    deployed_id = _deployed_id(model, running)
    split = _split(resource.get("trafficSplit", {}), deployed_id, traffic_percent)
    if deployed_id in [deployed["id"] for deployed in running]:
        _set_traffic(session, resource["name"], split)
        return find_endpoint(session, name)
    version, pool = "v1", {"minReplicaCount": 1, "maxReplicaCount": 1}
    if running:
        _keep_up(session, resource["name"], running)
    elif not always_on:
        version, idle = "v1beta1", f"{idle_shutdown_s}s"
        rest = {"idleScaledownPeriod": idle, "minScaleupPeriod": "300s"}
        pool |= {"minReplicaCount": 0, "initialReplicaCount": 1, "scaleToZeroSpec": rest}
        bill = ", and the bill" * (session.cloud == "google")
        print(f"After {idle_shutdown_s} s without a request its machine stops{bill}.")
    body = {
        "deployedModel": {
            "id": deployed_id,
            "model": model.resource_name,
            "displayName": f"{model.name} version {model.version}",
            "dedicatedResources": {"machineSpec": {"machineType": machine_type}} | pool,
        },
        "trafficSplit": {"0" if key == deployed_id else key: value for key, value in split.items()},
    }
    print(f'Deploying {model.name} version {model.version} to endpoint "{name}" ({machine_type}) …')
    endpoints = session.collection("endpoints", version)
    try:
        request = endpoints.deployModel(endpoint=resource["name"], body=body)
        started = session.create(
            request, lambda: _find_deployed(session, resource["name"], deployed_id, model)
        )
        session.wait(started, version=version)
    except CloudError as error:
        if created and error.status != 401:
            _delete_if_empty(session, resource["name"])
        if error.status == 404 and not created and named(session, "endpoints", name) is None:
            return deploy(  # whoever had made the endpoint failed, and removed it
                session, model, name=name, machine_type=machine_type,
                traffic_percent=traffic_percent, idle_shutdown_s=idle_shutdown_s,
                always_on=always_on,
            )  # fmt: skip
        if version == "v1beta1" and error.status in (400, 404, 501) and error.method:
            raise CloudError(
                f"Scaling to zero was refused: {error} If that is why, always_on=True does "
                "without it: the machine then bills until helpers.cleanup.",
                status=error.status,
                method=error.method,
            ) from error
        raise
    return find_endpoint(session, name)


def _create_endpoint(session: Session, name: str) -> tuple[dict, bool]:
    """The endpoint of that name, and whether this call made it: another notebook may be faster.

    Raises:
        CloudError: an endpoint of another name has the id of this one.
    """
    endpoints, endpoint_id = session.collection("endpoints"), resource_id(name)
    mark = {"made-in": uuid.uuid4().hex}  # tells this call's endpoint from anybody else's
    body = {"displayName": name, "labels": LABELS | mark, "dedicatedEndpointEnabled": True}
    found, attempt = None, 0
    while found is None:  # None: whoever was faster has it made, or deleted, at this moment
        made = endpoints.create(parent=session.parent, endpointId=endpoint_id, body=body)
        operation = session.call(made, repeatable=True, unless=409 if attempt < RETRIES else 0)
        if operation:
            session.wait(operation)
        about = endpoints.get(name=f"{session.parent}/endpoints/{endpoint_id}")
        found = session.call(about, unless=404)
        if found is None:
            pause(attempt)
            attempt += 1
    if found["displayName"] != name:
        raise CloudError(
            f'Endpoint {endpoint_id} in {session.location} is "{found["displayName"]}" and not '
            f'"{name}"; it stays as it is. Choose another ENDPOINT_NAME.',
            status=409,
        )
    return found, mark.items() <= found.get("labels", {}).items()


def _delete_if_empty(session: Session, endpoint: str) -> None:
    """Delete an endpoint on which a deployment failed, unless something else is on it by now."""
    try:
        session.wait(session.call(session.collection("endpoints").delete(name=endpoint)))
    except CloudError as error:
        if error.status not in (400, 404, 409):  # 400: a model is deployed, or being deployed
            raise


def _keep_up(session: Session, endpoint: str, running: list[dict]) -> None:
    """Versions that share an endpoint can't scale to zero; end it for the one that may."""
    endpoints = session.collection("endpoints", "v1beta1")
    for deployed in running:
        pool = deployed["dedicatedResources"]
        if not pool.get("minReplicaCount"):
            bill = ", and bill," * (session.cloud == "google")
            print(f"Two versions can't scale to zero: both stay up{bill} until cleanup.")
            kept = {"machineSpec": pool["machineSpec"], "minReplicaCount": 1}
            body = {
                "deployedModel": {"id": deployed["id"], "dedicatedResources": kept},
                "updateMask": "dedicatedResources.minReplicaCount,"
                "dedicatedResources.initialReplicaCount,dedicatedResources.scaleToZeroSpec",
            }
            request = endpoints.mutateDeployedModel(endpoint=endpoint, body=body)
            session.wait(session.call(request, repeatable=True), version="v1beta1")


def find_endpoint(session: Session, name: str) -> Endpoint:
    """An endpoint by display name.

    Raises:
        NotFoundError: no such endpoint; the nearest name is given.
    """
    resource = named(session, "endpoints", name)
    if not resource:
        raise missing(session, "endpoints", name, "Run 03_deploy.ipynb first.")
    services = session.collection("models")
    models, traffic = {}, {}
    for deployed in resource.get("deployedModels", []):
        full_name = f"{deployed['model'].split('@')[0]}@{deployed['modelVersionId']}"
        found = session.call(services.get(name=full_name))
        models[found["versionId"]] = as_model(session, found, found["displayName"])
        traffic[found["versionId"]] = resource.get("trafficSplit", {}).get(deployed["id"], 0)
    host = resource.get("dedicatedEndpointDns", "")
    root = session.endpoint or (f"https://{host}" if host else session.root("aiplatform"))
    url = f"{root}/v1/{resource['name']}"
    return Endpoint(session, name, resource["name"], url, host, traffic, models)


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
    """Undeploy every model of an endpoint, then delete it; done before is fine."""
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


def promote(session: Session, model: Model, *, name: str = "") -> Endpoint:
    """Give a deployed version all the traffic of its endpoint."""
    return _give_all(session, name or model.name, model.version)


def roll_back(session: Session, *, name: str) -> Endpoint:
    """Give all the traffic back to the newest version older than the one that has most of it."""
    endpoint = find_endpoint(session, name)
    serving = max(endpoint.traffic, key=endpoint.traffic.get, default="0")
    older = [v for v in endpoint.models if int(v) < int(serving)]
    if not older:
        raise NotDeployedError(
            f'Endpoint "{name}" has no version older than {serving} to go back to.'
        )
    return _give_all(session, name, max(older, key=int))


def _give_all(session: Session, name: str, version: str) -> Endpoint:
    endpoint = find_endpoint(session, name)
    if version not in endpoint.models:
        raise NotDeployedError(
            f'Version {version} is not deployed on "{name}" (there: {", ".join(endpoint.models)}).'
        )
    resource = named(session, "endpoints", name)
    split = {
        d["id"]: 100 if d["modelVersionId"] == version else 0 for d in resource["deployedModels"]
    }
    _set_traffic(session, resource["name"], split)
    return find_endpoint(session, name)


def _set_traffic(session: Session, endpoint: str, split: dict[str, int]) -> None:
    endpoints = session.collection("endpoints")
    body = {"trafficSplit": split}
    session.call(endpoints.patch(name=endpoint, updateMask="trafficSplit", body=body))


def _split(current: dict[str, int], deployed_id: str, percent: int) -> dict[str, int]:
    """Scale the others' shares to what is left; always sums to 100."""
    others = {key: share for key, share in current.items() if key != deployed_id}
    total, left = sum(others.values()), 100 - percent
    if not total:
        return dict.fromkeys(others, 0) | {deployed_id: 100}
    split = {key: share * left // total for key, share in others.items()}
    largest = max(split, key=split.get)
    split[largest] += left - sum(split.values())
    return split | {deployed_id: percent}


def _deployed_id(model: Model, running: list[dict]) -> str:
    """Chosen from the version, so that a repeated deploy meets itself (1-10 digits)."""
    number, taken = zlib.crc32(model.resource_name.encode()) % 10**9 + 1, {}
    for deployed in running:
        taken[deployed["id"]] = _is_version(deployed, model)
    while not taken.get(str(number), True):
        number += 1
    return str(number)


def _is_version(deployed: dict, model: Model) -> bool:
    name = f"{deployed['model'].split('@')[0]}@{deployed['modelVersionId']}"
    return name.rsplit("/", 1)[-1] == model.resource_name.rsplit("/", 1)[-1]


def _find_deployed(session: Session, endpoint: str, deployed_id: str, model: Model) -> dict | None:
    """A deployment whose answer was lost, as its operation would give it."""
    settle(session, "endpoints", endpoint)
    resource = session.call(session.collection("endpoints").get(name=endpoint))
    for deployed in resource.get("deployedModels", []):
        if deployed["id"] == deployed_id and _is_version(deployed, model):
            return {"done": True}
    return None
