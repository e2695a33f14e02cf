"""Endpoints: models behind one address, which shares its requests between them."""

import time

from helpers.emulator.front import rules
from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    camel,
    check_etag,
    etag,
    found,
    method,
    now,
    on_busy,
    patch,
    project_number,
    refused,
    resources,
)  # fmt: skip
from helpers.emulator.services import operations, predictions, registry

ID = "aiplatform.projects.locations.endpoints."
# What of a deployed model can be changed [P] MutateDeployedModelRequest.
COUNTS = {"minReplicaCount", "maxReplicaCount", "requiredReplicaCount", "autoscalingMetricSpecs",
          "scaleToZeroSpec", "initialReplicaCount"}  # fmt: skip
LOGGING = {"disableContainerLogging", "enableContainerLogging"}  # of v1; of v1beta1


# --- resources


@method(ID + "create")
def create(call: Call) -> dict:
    parent = call.path["parent"]
    endpoint_id, moment = call.query.get("endpointId") or call.state.next_id(), now()
    name = f"{parent}/endpoints/{endpoint_id}"
    endpoint = {key: value for key, value in call.body.items() if key != "etag"}
    endpoint |= {"name": name, "createTime": moment, "updateTime": moment}
    if endpoint.get("dedicatedEndpointEnabled"):
        _, project, _, location = parent.split("/")
        number = project_number(project)
        endpoint["dedicatedEndpointDns"] = (
            f"{endpoint_id}.{location}-{number}.prediction.vertexai.goog"
        )
    try:
        call.state.create("endpoint", name, endpoint, parent=parent)
    except KeyError as error:
        raise ApiError(409, f"Endpoint {name} already exists.") from error
    return operations.finished(
        call, name, _shown(endpoint), metadata="CreateEndpointOperationMetadata", kind="Endpoint"
    )


def _shown(endpoint: dict) -> dict:
    """With an etag: deploying a model changes none of what a caller may have read to change it."""
    read = {k: v for k, v in endpoint.items() if k not in ("deployedModels", "updateTime")}
    return operations.shown(endpoint) | {"etag": etag(read)}


resources(ID.rstrip("."), "endpoint", show=_shown)


@method(ID + "patch")
def patched(call: Call) -> dict:
    def change(endpoint: dict) -> dict:
        check_etag(call, _shown(endpoint)["etag"])
        allowed = {"displayName", "description", "labels", "trafficSplit"}
        endpoint = patch(endpoint, call.body, call.query.get("updateMask", ""), allowed)
        endpoint["_patched"] = endpoint["updateTime"]  # the same content again has another etag
        return _with_traffic(endpoint, endpoint.get("trafficSplit", {}))

    found(call, call.path["name"])
    return _shown(_update(call.cloud, call.path["name"], change))


@method(ID + "delete")
def delete(call: Call) -> dict:
    name = call.path["name"]
    with predictions.lock:
        ids = [deployed["id"] for deployed in found(call, name).get("deployedModels", [])]
        ids += [key[1] for key in registry.deploying if key[0] == name]
        if ids:
            raise refused(
                f'Endpoint "{name}" has deployed or being deployed DeployedModel(s) with ID(s): '
                f"{', '.join(ids)}; undeploy them first."
            )
        call.state.delete(name)
        predictions.routes.pop(name, None)
    return operations.deleted(call, name)


@method(ID + "deployModel")
def deploy(call: Call) -> dict:
    name, deployed = call.path["endpoint"], call.body["deployedModel"]
    split = call.body.get("trafficSplit", {})
    with predictions.lock:
        endpoint = found(call, name)
        model = registry.version(call.state, deployed["model"])
        registry.in_place(model["name"], name.partition("/endpoints/")[0])
        deployed = {"displayName": model["displayName"]} | deployed | {
            "id": deployed.get("id") or call.state.next_id(),
            "model": model["name"].split("@")[0], "modelVersionId": model["versionId"],
            "createTime": now(), "_logged": _is_logged(call, deployed),
        }  # fmt: skip
        key = (name, deployed["id"])
        if (
            key in registry.deploying
            or key in predictions.servers
            or deployed["id"] in _ids(endpoint)
        ):
            raise ApiError(409, f"DeployedModel {deployed['id']} already exists in {name}.")
        _deployed(endpoint, deployed, split)  # would it be accepted?
        registry.deploying[key] = (deployed["model"], deployed["modelVersionId"])
    arguments = {"endpoint": name, "deployed": deployed, "split": split}
    return operations.start(
        call, name, deploy_model, arguments, metadata="DeployModelOperationMetadata",
        response="DeployModelResponse",
    )  # fmt: skip


@operations.work
def deploy_model(cloud: Cloud, endpoint: str, deployed: dict, split: dict) -> dict:
    """Start the server, then count it in; what fails leaves nothing behind."""
    key = (endpoint, deployed["id"])
    registry.deploying[key] = (deployed["model"], deployed["modelVersionId"])
    response = {"deployedModel": operations.shown(deployed)}
    try:
        if deployed["id"] in _ids(cloud.state.get(endpoint) or {}):
            return response  # done before the kill
        server = predictions.server_of(cloud, endpoint, deployed)
        try:
            server.ready().result()
            _update(cloud, endpoint, lambda e: _deployed(e, deployed, split))
        except BaseException:
            predictions.servers.pop(key, None)
            server.stop()
            raise
        return response
    finally:
        registry.deploying.pop(key, None)


def _deployed(endpoint: dict, deployed: dict, split: dict) -> dict:
    """The endpoint with one more model; "0" in the split is the new one."""
    models = [*endpoint.get("deployedModels", []), deployed]
    _alone_at_zero(endpoint, models)
    split = {deployed["id"] if key == "0" else key: share for key, share in split.items()}
    return _with_traffic(endpoint | {"deployedModels": models, "updateTime": now()}, split or
                         endpoint.get("trafficSplit", {}))  # fmt: skip


def _is_logged(call: Call, deployed: dict) -> bool:
    """Whether what the model prints is logged: v1 has to be told not to, v1beta1 to do it."""
    if call.version == "v1beta1":
        return deployed.get("enableContainerLogging", False)
    return not deployed.get("disableContainerLogging")


def _alone_at_zero(endpoint: dict, models: list[dict]) -> None:
    """[D: predictions/autoscaling, scale to zero, limitations]"""
    lone = len(models) == 1 and endpoint.get("dedicatedEndpointEnabled")
    if any(map(predictions.idle_s, models)) and not lone:
        raise refused("Scale to zero takes one DeployedModel, on an endpoint that is not shared.")


@method(ID + "mutateDeployedModel")
def mutate(call: Call) -> dict:
    """The counts of replicas, and whether there may be none."""
    name, wanted = call.path["endpoint"], call.body["deployedModel"]
    given = wanted.get("dedicatedResources", {})
    fields = [part.strip().split(".")[-1] for part in call.body["updateMask"].split(",")]
    fields = [camel(field) for field in fields]
    for field in set(fields) - COUNTS - LOGGING:
        raise ApiError(400, f"{field} of a deployed model can't be updated here.")

    def change(endpoint: dict) -> dict:
        if wanted.get("id") not in _ids(endpoint):
            raise ApiError(404, f"The DeployedModel does not exist: {wanted.get('id')} in {name}.")
        models = []
        for deployed in endpoint["deployedModels"]:
            if deployed["id"] == wanted["id"]:
                kept = {k: v for k, v in deployed["dedicatedResources"].items() if k not in fields}
                kept |= {k: given[k] for k in fields if k in given}
                for where, said in rules.dedicated_resources(kept, "dedicated_resources"):
                    raise ApiError(400, f"{where}: {said}")
                flags = {key: wanted[key] for key in LOGGING & set(fields) if key in wanted}
                deployed = deployed | {"dedicatedResources": kept} | flags
                if flags:
                    deployed["_logged"] = _is_logged(call, deployed)
            models.append(deployed)
        _alone_at_zero(endpoint, models)
        return endpoint | {"deployedModels": models, "updateTime": now()}

    found(call, name)
    changed = _update(call.cloud, name, change)
    deployed = next(one for one in changed["deployedModels"] if one["id"] == wanted["id"])
    server = predictions.server_of(call.cloud, name, deployed)
    server.logged = deployed.get("_logged", True)
    predictions.idle.pop(server, None)
    if predictions.idle_s(deployed):
        predictions.idle[server] = predictions.idle_s(deployed), time.monotonic()
    server.ready()
    return operations.finished(
        call, name, {"deployedModel": operations.shown(deployed)},
        metadata="MutateDeployedModelOperationMetadata", kind="MutateDeployedModelResponse",
    )  # fmt: skip


@method(ID + "undeployModel")
def undeploy(call: Call) -> dict:
    name, deployed_id = call.path["endpoint"], call.body["deployedModelId"]

    def change(endpoint: dict) -> dict:
        if deployed_id not in _ids(endpoint):
            raise ApiError(404, f"The DeployedModel does not exist: {deployed_id} in {name}.")
        models = [d for d in endpoint["deployedModels"] if d["id"] != deployed_id]
        split = call.body.get("trafficSplit") or endpoint.get("trafficSplit", {})
        if not models:
            split = {}
        if split.get(deployed_id):
            raise refused(
                f"DeployedModel {deployed_id} has {split[deployed_id]} % of the traffic; give a "
                "traffic_split that leaves it none."
            )
        split = {key: share for key, share in split.items() if key != deployed_id}
        changed = endpoint | {"deployedModels": models, "updateTime": now()}
        return _with_traffic(changed, split)

    found(call, name)
    _update(call.cloud, name, change)
    arguments = {"endpoint": name, "deployed_id": deployed_id}
    return operations.start(
        call, name, undeploy_model, arguments, metadata="UndeployModelOperationMetadata",
        response="UndeployModelResponse",
    )  # fmt: skip


@operations.work
def undeploy_model(cloud: Cloud, endpoint: str, deployed_id: str) -> dict:
    """The endpoint names it no more: what is under way finishes, then its process ends."""
    server = predictions.servers.pop((endpoint, deployed_id), None)
    if server:
        server.stop()
    return {}


def _with_traffic(endpoint: dict, split: dict[str, int]) -> dict:
    unknown = [key for key in split if key not in _ids(endpoint)]
    if unknown:
        raise refused(f"The following DeployedModel ID(s) {unknown} do not exist.")
    rest = {key: value for key, value in endpoint.items() if key != "trafficSplit"}
    return rest | ({"trafficSplit": split} if split else {})


def _ids(endpoint: dict) -> list[str]:
    return [deployed["id"] for deployed in endpoint.get("deployedModels", [])]


def _update(cloud: Cloud, name: str, change) -> dict:
    with predictions.lock:
        try:
            endpoint = cloud.state.update(name, change)
        except KeyError as error:
            raise ApiError(404, f"The Endpoint does not exist: {name}.") from error
        predictions.routes.pop(name, None)
        return endpoint


@on_busy
def deploys(cloud: Cloud) -> bool:
    return bool(registry.deploying)
