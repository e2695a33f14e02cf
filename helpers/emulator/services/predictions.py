"""Predictions: the way from an endpoint to the processes that serve its models.

The processes, and the table of ways to them, belong to this run of the server and are made again
from the state.
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

from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    method,
    on_start,
    on_stop,
    read_body,
    refused,
)  # fmt: skip
from helpers.emulator.services import metrics, registry
from helpers.emulator.services.serving import START_S, Answer, ModelServer

ID = "aiplatform.projects.locations.endpoints."
LIMIT_BYTES = {False: 1_500_000, True: 10_000_000}  # shared and dedicated endpoints [D: quotas]
TIMEOUT_S = 60
PREDICTIONS = re.compile(rb'\s*\{\s*"predictions"\s*:')
TRIES = 3
WAKING = (  # [D: predictions/autoscaling, scale to zero]
    "Model is not yet ready for inference. Please wait while model completes scale-up from zero, "
    "then try your request again."
)


@dataclass(frozen=True, eq=False)
class Target:
    """One deployed model."""

    server: ModelServer
    about: dict[str, str]  # what a predict answer says besides the predictions
    headers: list[tuple[bytes, bytes]]  # what a rawPredict answer says besides the model server's
    idle_s: float  # see `idle_s`


@dataclass(frozen=True)
class Route:
    """Where an endpoint's requests go; `host` is "" for a shared endpoint."""

    host: str
    timeout_s: float  # of one request
    targets: list[Target]
    shares: list[int]  # cumulative


lock = threading.RLock()
servers: dict[tuple[str, str], ModelServer] = {}  # (endpoint, deployed model's id)
routes: dict[str, "Route"] = {}
idle: dict[ModelServer, tuple[float, float]] = {}  # of those that scale to zero: limit, last use


# --- servers and the way to them


def server_of(cloud: Cloud, endpoint: str, deployed: dict) -> ModelServer:
    model = registry.version(cloud.state, f"{deployed['model']}@{deployed['modelVersionId']}")
    key = (endpoint, deployed["id"])
    with lock:
        if key not in servers:
            account, logged = deployed.get("serviceAccount", ""), deployed.get("_logged", True)
            servers[key] = ModelServer(
                cloud, endpoint, deployed["id"], model, account, logged=logged
            )
            if idle_s(deployed):
                idle[servers[key]] = idle_s(deployed), time.monotonic() + START_S
        return servers[key]


def _route(cloud: Cloud, name: str) -> Route:
    route = routes.get(name)
    if route:
        return route
    with lock:
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
        asked = endpoint.get("clientConnectionConfig", {}).get("inferenceTimeout")
        timeout_s = float(asked.removesuffix("s")) if asked else TIMEOUT_S
        return routes.setdefault(name, Route(host, timeout_s, targets, shares))


def _target(cloud: Cloud, name: str, deployed: dict) -> Target:
    server = server_of(cloud, name, deployed)
    model = registry.version(cloud.state, f"{deployed['model']}@{deployed['modelVersionId']}")
    about = {
        "deployedModelId": deployed["id"], "model": deployed["model"],
        "modelDisplayName": model["displayName"], "modelVersionId": deployed["modelVersionId"],
    }  # fmt: skip
    named = {
        "Endpoint-Id": server.endpoint_id, "Deployed-Model-Id": deployed["id"],
        "Model": deployed["model"], "Model-Version-Id": deployed["modelVersionId"],
    }  # fmt: skip
    headers = [(f"x-vertex-ai-{k}".lower().encode(), v.encode()) for k, v in named.items()]
    return Target(server, about, headers, idle_s(deployed))


@on_start
def serve_again(cloud: Cloud) -> None:
    """Start what was deployed; requests that come before it is up wait for it."""
    for endpoint in cloud.state.list("endpoint"):
        for deployed in endpoint.get("deployedModels", []):
            server_of(cloud, endpoint["name"], deployed).ready()
    threading.Thread(target=_scale_to_zero, daemon=True).start()


def idle_s(deployed: dict) -> float:
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
        for server, (limit_s, asked_s) in list(idle.items()):
            if server.stopped:
                idle.pop(server, None)
            elif not server.under_way and time.monotonic() - asked_s > limit_s:
                server.end()


@on_stop
def end_servers(cloud: Cloud) -> None:
    for server in servers.values():
        server.stopped = True
    for server in servers.values():
        server.end()


# --- predictions


@method(ID + "predict", streamed=True)
async def predict(call: Call) -> Response:
    body = check_instances(await _body(call))
    return predicted(completed(*await _forward(call, body, "application/json")))


def check_instances(body: bytes) -> bytes:
    """A predict request's body, as the model server gets it.

    Raises:
        ApiError: it is not sound.
    """
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
    return body


def completed(target: Target, answer: Answer) -> bytes:
    """What a predict request is answered: the predictions, and who made them.

    Raises:
        ApiError: the model server refused it.
    """
    if answer.status != 200:
        code = answer.status if answer.status in (429, 503) else 400 if answer.status < 500 else 500
        raise ApiError(code, answer.body.decode(errors="replace"))
    end = answer.body.rstrip()
    if not PREDICTIONS.match(end) or not end.endswith(b"}"):
        said = end[:200].decode(errors="replace")
        raise ApiError(500, f'The model server\'s answer has no "predictions": {said}')
    # The predictions pass unread; only the answer's last brace gives way to what is added.
    return end[:-1] + b"," + orjson.dumps(target.about)[1:]


def predicted(body: bytes) -> Response:
    return Response(body, media_type="application/json; charset=UTF-8")


@method(ID + "rawPredict", streamed=True)
async def raw_predict(call: Call) -> Response:
    body = await _body(call)
    kind = call.request.headers.get("content-type", "application/json")
    return passed_on(*await _forward(call, body, kind))


def passed_on(target: Target, answer: Answer) -> Response:
    """What a rawPredict request is answered."""
    response = Response(answer.body, answer.status, media_type=answer.kind)
    response.raw_headers[:0] = target.headers
    return response


async def _forward(call: Call, body: bytes, kind: str) -> tuple[Target, Answer]:
    name, failure = call.path["endpoint"], None
    for _ in range(TRIES):
        route = _route(call.cloud, name)
        if not route.targets:
            raise refused(f"Endpoint {name} doesn't have traffic_split.")
        target = choose(route)
        server = target.server
        server.under_way += 1
        try:
            async with asyncio.timeout(route.timeout_s):
                started = server.ready()
                if target.idle_s:
                    grace_s = 0 if started.done() else START_S
                    idle[server] = target.idle_s, time.monotonic() + grace_s
                    if grace_s:
                        raise ApiError(429, WAKING)
                if not started.done():
                    await asyncio.shield(asyncio.wrap_future(started))
                started.result()
                begun_s = time.perf_counter()
                answer = await server.post(body, kind)
                took_s = time.perf_counter() - begun_s
                metrics.record(name, target.about["deployedModelId"], answer.status, took_s)
                return target, answer
        except TimeoutError as error:
            raise late(route) from error
        except (OSError, EOFError) as error:
            failure = error
            await asyncio.to_thread(server.wait_gone)  # died, or undeployed: the next try finds out
        finally:
            server.under_way -= 1
    raise ApiError(503, f"The model server does not stay up ({failure!r}); see its log.")


def choose(route: Route) -> Target:
    """The deployed model that gets a request."""
    if len(route.targets) == 1:
        return route.targets[0]
    return random.choices(route.targets, cum_weights=route.shares)[0]


def late(route: Route) -> ApiError:
    return ApiError(504, f"The model did not answer in {route.timeout_s:g} s.")


async def _body(call: Call) -> bytes:
    """The request's body, at most as large as the endpoint takes."""
    route = _route(call.cloud, call.path["endpoint"])
    check_host(route, call.path["endpoint"], call.request.headers["host"])
    return await read_body(call.request, LIMIT_BYTES[bool(route.host)], 400)


def check_host(route: Route, endpoint: str, header: str) -> None:
    """Raises: ApiError: the endpoint is not reached by the name in this Host header."""
    host = header.split(":")[0].lower()
    if route.host and host != route.host:
        raise refused(
            "Dedicated Endpoint cannot be accessed through the shared Vertex AI domain "
            f"aiplatform.googleapis.com. Use its dedicated DNS name {route.host!r}."
        )
    if not route.host and host.endswith(".prediction.vertexai.goog"):
        raise ApiError(404, f"The Endpoint is not a dedicated one: {endpoint}.")
