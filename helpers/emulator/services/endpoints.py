"""Endpoints: models behind one address, which shares its requests between them.

The state holds what was asked for. The processes, and the table of ways to them, belong to this
run of the server and are made again from the state.
"""

import asyncio
import os
import random
import re
import threading
import time
from dataclasses import dataclass

import orjson
from starlette.responses import Response

from helpers.emulator.front import rules
from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    found,
    method,
    now,
    on_busy,
    on_start,
    on_stop,
    page,
    patch,
    read_body,
)  # fmt: skip
from helpers.emulator.services import operations, registry
from helpers.emulator.services.projects import project_number
from helpers.emulator.services.serving import START_S, Answer, ModelServer

ID = "aiplatform.projects.locations.endpoints."
TYPE = registry.TYPE
LIMIT_BYTES = {False: 1_500_000, True: 10_000_000}  # shared and dedicated endpoints [D: quotas]
TIMEOUT_S = 60
PREDICTIONS = re.compile(rb'\s*\{\s*"predictions"\s*:')
TRIES = 3
WAKING = (  # [D: predictions/autoscaling, scale to zero]
    "Model is not yet ready for inference. Please wait while model completes scale-up from zero, "
    "then try your request again."
)
BETA = ("scaleToZeroSpec", "initialReplicaCount")
servers: dict[tuple[str, str], ModelServer] = {}  # (endpoint, deployed model's id)
_routes: dict[str, "Route"] = {}
_idle: dict[ModelServer, tuple[float, float]] = {}  # of those that scale to zero: limit, last use
_lock = threading.RLock()


@dataclass(frozen=True)
class Target:
    """One deployed model."""

    server: ModelServer
    about: dict[str, str]  # what a predict answer says besides the predictions
    idle_s: float  # see `_idle_s`


@dataclass(frozen=True)
class Route:
    """Where an endpoint's requests go; `host` is "" for a shared endpoint."""

    host: str
    targets: list[Target]
    shares: list[int]  # cumulative


# --- resources


@method(ID + "create")
def create(call: Call) -> dict:
    parent = call.path["parent"]
    endpoint_id, moment = call.query.get("endpointId") or call.state.next_id(), now()
    name = f"{parent}/endpoints/{endpoint_id}"
    endpoint = call.body | {"name": name, "createTime": moment, "updateTime": moment}
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
    about = {"@type": TYPE + "CreateEndpointOperationMetadata"}
    response = {"@type": TYPE + "Endpoint"} | endpoint
    return operations.finished(call.cloud, name, response, metadata=about)


@method(ID + "get")
def get(call: Call) -> dict:
    return _shown(call, found(call, call.path["name"]))


@method(ID + "list")
def listed(call: Call) -> dict:
    endpoints = call.state.list("endpoint", call.path["parent"])[::-1]
    return page(call, [_shown(call, endpoint) for endpoint in endpoints], "endpoints")


def _shown(call: Call, endpoint: dict) -> dict:
    """v1 has no words for what v1beta1 alone may ask."""
    if call.request.url.path.startswith("/v1beta1/") or "deployedModels" not in endpoint:
        return endpoint
    models = []
    for deployed in endpoint["deployedModels"]:
        resources = deployed["dedicatedResources"]
        kept = {k: v for k, v in resources.items() if k not in BETA}
        models.append(deployed | {"dedicatedResources": kept})
    return endpoint | {"deployedModels": models}


@method(ID + "patch")
def patched(call: Call) -> dict:
    def change(endpoint: dict) -> dict:
        allowed = {"displayName", "description", "labels", "trafficSplit"}
        endpoint = patch(endpoint, call.body, call.query.get("updateMask", ""), allowed)
        return _with_traffic(endpoint, endpoint.get("trafficSplit", {}))

    found(call, call.path["name"])
    return _update(call.cloud, call.path["name"], change)


@method(ID + "delete")
def delete(call: Call) -> dict:
    name = call.path["name"]
    with _lock:
        ids = [deployed["id"] for deployed in found(call, name).get("deployedModels", [])]
        ids += [key[1] for key in registry.deploying if key[0] == name]
        if ids:
            raise _refused(
                f'Endpoint "{name}" has deployed or being deployed DeployedModel(s) with ID(s): '
                f"{', '.join(ids)}; undeploy them first."
            )
        call.state.delete(name)
        _routes.pop(name, None)
    empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    about = {"@type": TYPE + "DeleteOperationMetadata"}
    return operations.finished(call.cloud, name, empty, metadata=about)


@method(ID + "deployModel")
def deploy(call: Call) -> dict:
    name, deployed = call.path["endpoint"], call.body["deployedModel"]
    split = call.body.get("trafficSplit", {})
    with _lock:
        endpoint = found(call, name)
        model = registry.version(call.state, deployed["model"])
        registry.in_place(model["name"], name.partition("/endpoints/")[0])
        deployed = {"displayName": model["displayName"]} | deployed | {
            "id": deployed.get("id") or call.state.next_id(),
            "model": model["name"].split("@")[0], "modelVersionId": model["versionId"],
            "createTime": now(),
        }  # fmt: skip
        key = (name, deployed["id"])
        if key in registry.deploying or key in servers or deployed["id"] in _ids(endpoint):
            raise ApiError(409, f"DeployedModel {deployed['id']} already exists in {name}.")
        _deployed(endpoint, deployed, split)  # would it be accepted?
        registry.deploying[key] = (deployed["model"], deployed["modelVersionId"])
    arguments = {"endpoint": name, "deployed": deployed, "split": split}
    about = {"@type": TYPE + "DeployModelOperationMetadata"}
    return operations.start(call.cloud, name, deploy_model, arguments, metadata=about)


@operations.work
def deploy_model(cloud: Cloud, endpoint: str, deployed: dict, split: dict) -> dict:
    """Start the server, then count it in; what fails leaves nothing behind."""
    key = (endpoint, deployed["id"])
    registry.deploying[key] = (deployed["model"], deployed["modelVersionId"])
    response = {"@type": TYPE + "DeployModelResponse", "deployedModel": deployed}
    try:
        if deployed["id"] in _ids(cloud.state.get(endpoint) or {}):
            return response  # done before the kill
        server = _server(cloud, endpoint, deployed)
        try:
            server.ready().result()
            _update(cloud, endpoint, lambda e: _deployed(e, deployed, split))
        except BaseException:
            servers.pop(key, None)
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


def _alone_at_zero(endpoint: dict, models: list[dict]) -> None:
    """[D: predictions/autoscaling, scale to zero, limitations]"""
    lone = len(models) == 1 and endpoint.get("dedicatedEndpointEnabled")
    if any(map(_idle_s, models)) and not lone:
        raise _refused("Scale to zero takes one DeployedModel, on an endpoint that is not shared.")


@method(ID + "mutateDeployedModel")
def mutate(call: Call) -> dict:
    """The counts of replicas, and whether there may be none."""
    name, wanted = call.path["endpoint"], call.body["deployedModel"]
    given = wanted.get("dedicatedResources", {})
    fields = [part.strip().split(".")[-1] for part in call.body["updateMask"].split(",")]
    fields = [re.sub(r"_(\w)", lambda m: m[1].upper(), field) for field in fields]
    for field in set(fields) - {"minReplicaCount", "maxReplicaCount", *BETA}:
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
                deployed = deployed | {"dedicatedResources": kept}
            models.append(deployed)
        _alone_at_zero(endpoint, models)
        return endpoint | {"deployedModels": models, "updateTime": now()}

    found(call, name)
    changed = _update(call.cloud, name, change)
    deployed = next(one for one in changed["deployedModels"] if one["id"] == wanted["id"])
    server = _server(call.cloud, name, deployed)
    _idle.pop(server, None)
    if _idle_s(deployed):
        _idle[server] = _idle_s(deployed), time.monotonic()
    server.ready()
    response = {"@type": TYPE + "MutateDeployedModelResponse", "deployedModel": deployed}
    about = {"@type": TYPE + "MutateDeployedModelOperationMetadata"}
    return operations.finished(call.cloud, name, response, metadata=about)


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
            raise _refused(
                f"DeployedModel {deployed_id} has {split[deployed_id]} % of the traffic; give a "
                "traffic_split that leaves it none."
            )
        split = {key: share for key, share in split.items() if key != deployed_id}
        changed = endpoint | {"deployedModels": models, "updateTime": now()}
        return _with_traffic(changed, split)

    found(call, name)
    _update(call.cloud, name, change)
    arguments = {"endpoint": name, "deployed_id": deployed_id}
    about = {"@type": TYPE + "UndeployModelOperationMetadata"}
    return operations.start(call.cloud, name, undeploy_model, arguments, metadata=about)


@operations.work
def undeploy_model(cloud: Cloud, endpoint: str, deployed_id: str) -> dict:
    """The endpoint names it no more: what is under way finishes, then its process ends."""
    server = servers.pop((endpoint, deployed_id), None)
    if server:
        server.stop()
    return {"@type": TYPE + "UndeployModelResponse"}


def _with_traffic(endpoint: dict, split: dict[str, int]) -> dict:
    unknown = [key for key in split if key not in _ids(endpoint)]
    if unknown:
        raise _refused(f"The following DeployedModel ID(s) {unknown} do not exist.")
    rest = {key: value for key, value in endpoint.items() if key != "trafficSplit"}
    return rest | ({"trafficSplit": split} if split else {})


def _ids(endpoint: dict) -> list[str]:
    return [deployed["id"] for deployed in endpoint.get("deployedModels", [])]


def _update(cloud: Cloud, name: str, change) -> dict:
    with _lock:
        try:
            endpoint = cloud.state.update(name, change)
        except KeyError as error:
            raise ApiError(404, f"The Endpoint does not exist: {name}.") from error
        _routes.pop(name, None)
        return endpoint


def _refused(message: str) -> ApiError:
    return ApiError(400, message, status="FAILED_PRECONDITION")


# --- servers and the way to them


def _server(cloud: Cloud, endpoint: str, deployed: dict) -> ModelServer:
    model = registry.version(cloud.state, f"{deployed['model']}@{deployed['modelVersionId']}")
    key = (endpoint, deployed["id"])
    with _lock:
        if key not in servers:
            servers[key] = ModelServer(cloud, endpoint, deployed["id"], model)
            if _idle_s(deployed):
                _idle[servers[key]] = _idle_s(deployed), time.monotonic() + START_S
        return servers[key]


def _route(cloud: Cloud, name: str) -> Route:
    route = _routes.get(name)
    if route:
        return route
    with _lock:
        endpoint = cloud.state.get(name)
        if endpoint is None:
            raise ApiError(404, f"The Endpoint does not exist: {name}.")
        targets, shares = [], []
        split = endpoint.get("trafficSplit", {})
        for deployed in endpoint.get("deployedModels", []):
            if split.get(deployed["id"]):
                targets.append(_target(cloud, name, deployed))
                shares.append(split[deployed["id"]] + (shares[-1] if shares else 0))
        host = endpoint.get("dedicatedEndpointDns", "")
        return _routes.setdefault(name, Route(host, targets, shares))


def _target(cloud: Cloud, name: str, deployed: dict) -> Target:
    server = _server(cloud, name, deployed)
    model = registry.version(cloud.state, f"{deployed['model']}@{deployed['modelVersionId']}")
    about = {
        "deployedModelId": deployed["id"], "model": deployed["model"],
        "modelDisplayName": model["displayName"], "modelVersionId": deployed["modelVersionId"],
    }  # fmt: skip
    return Target(server, about, _idle_s(deployed))


@on_start
def serve_again(cloud: Cloud) -> None:
    """Start what was deployed; requests that come before it is up wait for it."""
    for endpoint in cloud.state.list("endpoint"):
        for deployed in endpoint.get("deployedModels", []):
            _server(cloud, endpoint["name"], deployed).ready()
    threading.Thread(target=_scale_to_zero, daemon=True).start()


def _idle_s(deployed: dict) -> float:
    """Seconds without a request after which no process is left; 0: there is always one.

    LOCAL_CLOUD_IDLE_S stands in for every period that was asked for, because tests can't wait.
    """
    spec = deployed["dedicatedResources"].get("scaleToZeroSpec")
    if spec is None:
        return 0
    asked = spec.get("idleScaledownPeriod", "3600s").removesuffix("s")
    return float(os.environ.get("LOCAL_CLOUD_IDLE_S") or asked)


def _scale_to_zero() -> None:
    """End the processes that nobody asked for long enough; the next request starts them again."""
    while True:
        time.sleep(0.5)
        for server, (limit_s, asked_s) in list(_idle.items()):
            if server.stopped:
                _idle.pop(server, None)
            elif not server.under_way and time.monotonic() - asked_s > limit_s:
                server.end()


@on_stop
def end_servers(cloud: Cloud) -> None:
    for server in servers.values():
        server.stopped = True
    for server in servers.values():
        server.end()


@on_busy
def deploys(cloud: Cloud) -> bool:
    return bool(registry.deploying)


# --- predictions


@method(ID + "predict", streamed=True)
async def predict(call: Call) -> Response:
    body = await _body(call)
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"Invalid JSON payload received. {error}") from error
    if not isinstance(request, dict):
        raise ApiError(400, "Invalid JSON payload received. Root element must be a message.")
    for key in request.keys() - {"instances", "parameters", "labels"}:
        raise ApiError(
            400, f'Invalid JSON payload received. Unknown name "{key}": Cannot find field.'
        )
    if not isinstance(request.get("instances"), list) or not request["instances"]:
        raise ApiError(400, "List of found errors:\t1.Field: instances; Message: Required field is "
                            "not set.\t")  # fmt: skip
    if "labels" in request:  # for billing, not for the model
        body = orjson.dumps({k: v for k, v in request.items() if k != "labels"})
    target, answer = await _forward(call, body, "application/json")
    if answer.status != 200:
        code = answer.status if answer.status in (429, 503) else 400 if answer.status < 500 else 500
        raise ApiError(code, answer.body.decode(errors="replace"))
    end = answer.body.rstrip()
    if not PREDICTIONS.match(end) or not end.endswith(b"}"):
        said = end[:200].decode(errors="replace")
        raise ApiError(500, f'The model server\'s answer has no "predictions": {said}')
    # The predictions pass unread; only the answer's last brace gives way to what is added.
    tail = b"," + orjson.dumps(target.about)[1:]
    return Response(end[:-1] + tail, media_type="application/json; charset=UTF-8")


@method(ID + "rawPredict", streamed=True)
async def raw_predict(call: Call) -> Response:
    body = await _body(call)
    kind = call.request.headers.get("content-type", "application/json")
    target, answer = await _forward(call, body, kind)
    headers = {
        "X-Vertex-AI-Endpoint-Id": target.server.endpoint_id,
        "X-Vertex-AI-Deployed-Model-Id": target.about["deployedModelId"],
        "X-Vertex-AI-Model": target.about["model"],
        "X-Vertex-AI-Model-Version-Id": target.about["modelVersionId"],
    }
    return Response(answer.body, answer.status, headers, media_type=answer.kind)


async def _forward(call: Call, body: bytes, kind: str) -> tuple[Target, Answer]:
    name, failure = call.path["endpoint"], None
    for _ in range(TRIES):
        route = _route(call.cloud, name)
        if not route.targets:
            raise _refused(f"Endpoint {name} doesn't have traffic_split.")
        target = random.choices(route.targets, cum_weights=route.shares)[0]
        server = target.server
        server.under_way += 1
        try:
            async with asyncio.timeout(TIMEOUT_S):
                started = server.ready()
                if target.idle_s:
                    grace_s = 0 if started.done() else START_S
                    _idle[server] = target.idle_s, time.monotonic() + grace_s
                    if grace_s:
                        raise ApiError(429, WAKING)
                if not started.done():
                    await asyncio.shield(asyncio.wrap_future(started))
                started.result()
                return target, await server.post(body, kind)
        except TimeoutError as error:
            raise ApiError(504, f"The model did not answer in {TIMEOUT_S} s.") from error
        except (OSError, EOFError) as error:
            failure = error
            await asyncio.to_thread(server.wait_gone)  # died, or undeployed: the next try finds out
        finally:
            server.under_way -= 1
    raise ApiError(503, f"The model server does not stay up ({failure!r}); see its log.")


async def _body(call: Call) -> bytes:
    """The request's body, at most as large as the endpoint takes."""
    route = _route(call.cloud, call.path["endpoint"])
    host = call.request.headers["host"].split(":")[0].lower()
    if route.host and host != route.host:
        raise _refused(
            "Dedicated Endpoint cannot be accessed through the shared Vertex AI domain "
            f"aiplatform.googleapis.com. Use its dedicated DNS name {route.host!r}."
        )
    if not route.host and host.endswith(".prediction.vertexai.goog"):
        raise ApiError(404, f"The Endpoint is not a dedicated one: {call.path['endpoint']}.")
    return await read_body(call.request, LIMIT_BYTES[bool(route.host)], 400)
