"""One ASGI app for every service: who may call, which method it is, is the request sound."""

import asyncio
import functools
import importlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from helpers.emulator.front import callers, discovery, honoured_fields, partial, rules
from helpers.emulator.front.calls import (
    BUSY,
    ON_START,
    ON_STOP,
    STREAMED,
    ApiError,
    Call,
    Cloud,
    not_emulated,
    read_body,
)
from helpers.emulator.front.faults import Faults, drop

# Importing a service registers its methods.
SERVICES = (
    "operations", "buckets", "objects", "uploads", "copies", "builds", "projects", "logs", "jobs",
    "tuning", "registry", "endpoints", "predictions", "metrics", "batch",
)  # fmt: skip
BODY_BYTES = 8 * 2**20
IDLE_S = 30 * 60
HOSTS = {"127.0.0.1", "localhost"}
DEDICATED = ".prediction.vertexai.goog"
log = logging.getLogger("helpers.emulator")


class App:
    """The local cloud behind its socket."""

    def __init__(self, cloud: Cloud):
        self.cloud, self.last_call_s = cloud, time.monotonic()
        self.faults = Faults(os.environ.get("LOCAL_CLOUD_FAULTS") or "{}")
        for name in SERVICES:
            importlib.import_module(f"helpers.emulator.services.{name}")

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        self.last_call_s = time.monotonic()
        request = Request(scope, receive)
        request.state.fault = ""
        try:
            response = await self.answer(request)
        except ApiError as error:
            response = refusal(error)
        except ConnectionAbortedError:  # a fault that was asked for
            drop(send)
            return
        except ClientDisconnect:
            return
        except (OSError, sqlite3.OperationalError) as error:  # a full disk, above all
            log.error("%s %s: %r", request.method, request.url.path, error)
            reason = getattr(error, "strerror", None) or error
            problem = ApiError(503, f"The local cloud can't store it: {reason}.")
            response = _json(problem.body(), 503)
        except Exception as error:
            log.exception("%s %s", request.method, request.url.path)
            problem = ApiError(500, f"Internal error of the local cloud: {error!r}.")
            response = _json(problem.body(), 500)
        await response(scope, receive, self.faults.after(request.state.fault, send))

    async def answer(self, request: Request) -> Response:
        refuse_strangers(request)
        if request.scope["path"] == "/" or request.scope["path"].startswith("/computeMetadata/"):
            return await run_in_threadpool(callers.metadata, request)
        caller = caller_of(self.cloud, request)
        path = request.scope["raw_path"].decode("latin-1").split("?")[0].lstrip("/")
        for prefix in ("resumable/upload/", "upload/", "download/"):
            path = path.removeprefix(prefix)
        _refuse_other_ways(self.cloud, request.method, path)
        uploading = request.scope["path"].startswith(("/upload/", "/resumable/"))
        verb, asked, unread = await _meant(request)
        method, handler, values = route("POST" if uploading else verb, path)
        callers.check(self.cloud, caller, method.id, values)
        query = discovery.check_query(method, asked)
        honoured_fields.check_query(method, query)
        body = {}
        if method.id not in STREAMED:
            body = discovery.check_body(method, await _body(request) if unread else {})
            honoured_fields.check_body(method, body)
            rules.check(method.id, values, query, body)
        request.state.fault = await self.faults.before(method.id)
        call = Call(self.cloud, method.id, values, query, body, request)
        if asyncio.iscoroutinefunction(handler):
            result = await handler(call)
        else:
            result = await run_in_threadpool(handler, call)
        if isinstance(result, Response):
            return result
        asked = query.get("fields")
        return _json(discovery.known(method, partial.select(result, asked) if asked else result))

    def idle(self) -> bool:
        """Nothing asked for half an hour, and nothing under way."""
        quiet = time.monotonic() - self.last_call_s > IDLE_S
        return quiet and not any(busy(self.cloud) for busy in BUSY)

    async def _lifespan(self, receive, send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                for function in ON_START:
                    await run_in_threadpool(function, self.cloud)
                await send({"type": "lifespan.startup.complete"})
            else:
                for function in reversed(ON_STOP):
                    await run_in_threadpool(function, self.cloud)
                await send({"type": "lifespan.shutdown.complete"})
                return


def refuse_strangers(request: Request) -> None:
    """Calls address this very server, and come from no web page."""
    headers = request.headers
    host = headers.get("host", "").rsplit(":", 1)[0].lower()
    if host not in HOSTS and not host.endswith(DEDICATED):
        raise ApiError(403, f"Host {host!r} is not this local cloud.")
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        raise ApiError(403, "Calls from web pages are refused.")


def caller_of(cloud: Cloud, request: Request) -> callers.Caller | None:
    """Whose token a request has; see `callers.find`."""
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    return callers.find(cloud, token.strip() if kind.lower() == "bearer" else "")


def _refuse_other_ways(cloud: Cloud, verb: str, path: str) -> None:
    """Ways into Google's services that no discovery document describes: batches of calls, and
    Cloud Storage's XML API, whose addresses are /BUCKET/OBJECT."""
    head, _, rest = path.partition("/")
    if head == "batch":
        raise not_emulated(f"a batch of calls ({verb} /{path})")
    is_xml = head not in (*discovery.DOCUMENTS, "ui") and cloud.state.get(f"b/{head}")
    if is_xml or (verb == "PUT" and head and not rest):
        raise not_emulated(f"Cloud Storage's XML API ({verb} /{path})")


@functools.lru_cache(1000)  # the same few addresses are asked for again and again
def route(verb: str, path: str) -> tuple[discovery.Method, Callable, dict]:
    """The method of an address, its handler and the names in the path, checked."""
    found = discovery.find(verb, path)
    if found is None:
        raise ApiError(404, f"No method of the emulated services has {verb} /{path}.")
    method, values = found
    handler = discovery.handler(method.id)
    if handler is None:
        raise ApiError(
            501,
            f'Local cloud: {method.id} is not emulated (501). Use CLOUD="google", or see '
            "helpers/emulator/README.md.",
        )
    rules.check_names(method.id, values)
    return method, handler, values


async def _meant(request: Request) -> tuple[str, str, bool]:
    """The verb, the query, and whether the body is there to be read: Google's clients send a GET
    whose address is too long as a POST that has its query as body."""
    query = request.scope["query_string"].decode("latin-1")
    verb = request.headers.get("x-http-method-override", request.method).upper()
    if request.method != "POST" or verb != "GET":
        return verb if request.method == "POST" else request.method, query, True
    return verb, (await read_body(request, BODY_BYTES)).decode("latin-1"), False


async def _body(request: Request) -> dict:
    raw = await read_body(request, BODY_BYTES)
    if not raw.strip():
        return {}
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ApiError(400, f"Invalid JSON payload received. {error}") from error


def refusal(error: ApiError) -> Response:
    response = _json(error.body(), error.code) if error.code != 304 else Response(None, 304)
    if error.code in (429, 503):
        response.headers["Retry-After"] = "1"
    return response


def _json(content: dict, status: int = 200) -> Response:
    return Response(orjson.dumps(content), status, media_type="application/json; charset=UTF-8")
