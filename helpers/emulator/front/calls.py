"""What a handler sees of a call, and how it answers: the words every service file here shares."""

import base64
import datetime
import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
from starlette.requests import Request

from helpers.emulator.front.filters import compile_filter, sort_key
from helpers.emulator.state import State

HANDLERS: dict[str, Callable] = {}  # method id → handler
STREAMED: set[str] = set()  # methods whose handlers read the request's body themselves
ON_START: list[Callable] = []
ON_STOP: list[Callable] = []
BUSY: list[Callable] = []
CODES = {
    400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND",
    409: "ALREADY_EXISTS", 412: "FAILED_PRECONDITION", 413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED", 500: "INTERNAL", 501: "UNIMPLEMENTED", 503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}  # fmt: skip
REASONS = {
    400: "invalid", 401: "authError", 403: "forbidden", 404: "notFound", 409: "conflict",
    412: "conditionNotMet", 413: "uploadTooLarge", 429: "rateLimitExceeded",
}  # fmt: skip
NUMBERS = {
    "OK": 0, "CANCELLED": 1, "UNKNOWN": 2, "INVALID_ARGUMENT": 3, "DEADLINE_EXCEEDED": 4,
    "NOT_FOUND": 5, "ALREADY_EXISTS": 6, "PERMISSION_DENIED": 7, "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9, "ABORTED": 10, "OUT_OF_RANGE": 11, "UNIMPLEMENTED": 12,
    "INTERNAL": 13, "UNAVAILABLE": 14, "UNAUTHENTICATED": 16,
}  # fmt: skip

NAMED = re.compile(r'\s*(?:displayName|display_name)\s*=\s*"([^"\\]+)"\s*')


class ApiError(Exception):
    """A refusal in Google's shape: HTTP code, canonical status, message."""

    def __init__(
        self, code: int, message: str, *, status: str = "", details: list | None = None,
        reason: str = "",
    ):  # fmt: skip
        super().__init__(message)
        self.reason = reason or REASONS.get(code, "backendError")
        self.code, self.message, self.details = code, message, details or []
        self.status = status or CODES.get(code, "UNKNOWN")

    def body(self) -> dict:
        """`google.rpc.Status` as HTTP answers carry it."""
        error = {"code": self.code, "message": self.message, "status": self.status}
        said = {"message": self.message, "domain": "global", "reason": self.reason}
        return {"error": error | {"details": self.details, "errors": [said]}}

    def rpc(self) -> dict:
        """`google.rpc.Status` as operations and jobs carry it."""
        return {"code": NUMBERS.get(self.status, 2), "message": self.message}


def not_emulated(what: str) -> ApiError:
    """Google takes it, the local cloud does not."""
    return ApiError(501, f"Local cloud: {what} is not emulated (501).")


def refused(message: str) -> ApiError:
    """What can't be done as things stand."""
    return ApiError(400, message, status="FAILED_PRECONDITION")


@dataclass
class Cloud:
    """The running local cloud: its folder, its state, its address."""

    folder: Path
    state: State
    url: str = ""
    token: str = field(default="", repr=False)


@dataclass
class Call:
    """One authenticated, routed and validated call.

    `path` and `query` are by the discovery document's parameter names; `body` is checked JSON.
    """

    cloud: Cloud
    method_id: str
    path: dict[str, str]
    query: dict[str, Any]
    body: dict
    request: Request

    @property
    def state(self) -> State:
        return self.cloud.state

    @property
    def version(self) -> str:
        """Of the API that the call speaks."""
        return self.request.scope["path"].split("/")[1].replace("ui", "v1")


def method(*method_ids: str, streamed: bool = False) -> Callable:
    """Serve these methods of the discovery documents. A handler takes a `Call` and gives the
    answer's JSON (or a Starlette response); plain functions run in a thread, async ones do not."""

    def register(handler: Callable) -> Callable:
        for method_id in method_ids:
            HANDLERS[method_id] = handler
        if streamed:
            STREAMED.update(method_ids)
        return handler

    return register


def on_start(function: Callable) -> Callable:
    """Call `function(cloud)` before the first request is served."""
    ON_START.append(function)
    return function


def on_stop(function: Callable) -> Callable:
    """Call `function(cloud)` when the server leaves."""
    ON_STOP.append(function)
    return function


def on_busy(function: Callable) -> Callable:
    """`function(cloud)` says whether work is under way; a busy cloud does not leave when idle."""
    BUSY.append(function)
    return function


async def read_body(request: Request, limit_bytes: int, code: int = 413) -> bytes:
    """The request's body, refused unread when it says that it is too large."""
    refusal = ApiError(code, f"Request payload size exceeds the limit: {limit_bytes} bytes.")
    length = request.headers.get("content-length", "0")
    if not length.isdecimal() or int(length) > limit_bytes:
        raise refusal
    raw = bytearray()
    async for chunk in request.stream():
        raw += chunk
        if len(raw) > limit_bytes:
            raise refusal
    return bytes(raw)


def now() -> str:
    """This moment as RFC 3339 with microseconds."""
    moment = datetime.datetime.now(datetime.UTC)
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def project_number(project: str) -> str:
    """A number for a project id, always the same."""
    if project.isdecimal():
        return project
    digest = hashlib.sha256(project.encode()).hexdigest()
    return str(10**11 + int(digest[:12], 16) % (9 * 10**11))


def found(call: Call, name: str) -> dict:
    """The resource of that name, or 404 in Google's words."""
    resource = call.state.get(name)
    if resource is None:
        kind = re.sub(r"(?<!^)(?=[A-Z])", " ", name.split("/")[-2].rstrip("s"))
        raise ApiError(404, f"The {kind.capitalize()} does not exist: {name}.")
    return resource


def resources(
    prefix: str, kind: str, *, key: str = "", show: Callable[[dict], dict] = dict,
    brief: Callable[[dict], dict] | None = None,
) -> None:  # fmt: skip
    """Serve get and list of the resources of a kind, the newest first.

    Args:
        prefix: of the methods' ids; its last word names the list in the answer, unless `key` does.
        show, brief: what a get and a list give of a resource.
    """

    @method(f"{prefix}.get")
    def get(call: Call) -> dict:
        return show(found(call, call.path["name"]))

    @method(f"{prefix}.list")
    def listed(call: Call) -> dict:
        parent, named = call.path.get("parent"), NAMED.fullmatch(call.query.get("filter", ""))
        # Where one display name alone is asked for, only those are read.
        kept = call.state.list(kind, parent or call.path["name"], named[1] if named else "")[::-1]
        shown = [(brief or show)(resource) for resource in kept]
        return page(call, shown, key or prefix.rpartition(".")[2])


def page(call: Call, items: list[dict], key: str) -> dict:
    """One page of a list call: filter, orderBy, pageSize and pageToken honoured."""
    if call.query.get("filter"):
        try:
            wanted = compile_filter(call.query["filter"])
        except ValueError as error:
            raise ApiError(400, f"Invalid filter: {error}") from error
        # `model=1` among the models means the last part of the name.
        short = key.removesuffix("s")
        ids = [item.get("name", "").split("@")[0].rsplit("/", 1)[-1] for item in items]
        pairs = zip(items, ids, strict=True)
        items = [item for item, own in pairs if wanted({short: own} | item)]
    for part in reversed([p for p in call.query.get("orderBy", "").split(",") if p.strip()]):
        name, _, direction = part.strip().partition(" ")
        if direction.strip() not in ("", "asc", "desc"):
            raise ApiError(400, f"Invalid orderBy: {part.strip()}")
        items = sorted(items, key=sort_key(name), reverse=direction.strip() == "desc")
    size = int(call.query.get("pageSize") or 100)
    if size < 0:
        raise ApiError(400, "Request contains an invalid argument: pageSize.")
    shown, token = part_of(call, items, min(size or 100, 1000))
    answer: dict = {key: shown} if shown else {}
    mask = call.query.get("readMask")
    if mask and mask != "*" and answer:
        paths = [[camel(word) for word in part.strip().split(".")] for part in mask.split(",")]
        answer[key] = [_masked(item, paths) for item in answer[key]]
    return answer | ({"nextPageToken": token} if token else {})


# What all pages of a list are asked with.
LISTED = ("filter", "orderBy", "prefix", "project", "resourceNames")


def part_of(call: Call, items: list[dict], size: int) -> tuple[list[dict], str]:
    """The page that a pageToken asks for, and the next one's token, or "".

    A token names the last item before its page, and tells how many were left: where that one has
    been deleted, the rest is found from the end, which is the oldest of most lists.
    """
    sent = call.query | call.body
    asked = call.path | {k: sent[k] for k in LISTED if k in sent}
    about, start = hashlib.sha256(repr(sorted(asked.items())).encode()).hexdigest()[:12], 0
    if given := sent.get("pageToken"):
        try:
            last, left, of = json.loads(base64.urlsafe_b64decode(given))
            fits = of == about and isinstance(left, int)
        except (ValueError, TypeError):
            fits = False
        if not fits:
            raise ApiError(400, "Request contains an invalid argument: pageToken.")
        names = [_identity(item) for item in items]
        start = names.index(last) + 1 if last in names else max(0, len(items) - left)
    shown, left = items[start : start + size], len(items) - start - size
    if left <= 0:
        return shown, ""
    token = json.dumps([_identity(shown[-1]), left, about])
    return shown, base64.urlsafe_b64encode(token.encode()).decode()


def _identity(item: dict) -> str:
    """What tells an item of a list from the others; those without a name stay as they are."""
    name = item.get("name") or item.get("insertId")
    name = name or hashlib.sha256(orjson.dumps(item)).hexdigest()
    return f"{name} {item.get('versionId', '')}"


def _masked(item: dict, paths: list[list[str]]) -> dict:
    """The parts of a resource that a field mask's paths lead to."""
    made = {}
    for name, value in item.items():
        inner = [path[1:] for path in paths if path[0] == name]
        if inner:
            whole = [] in inner or not isinstance(value, dict)
            made[name] = value if whole else _masked(value, inner)
    return made


def patch(resource: dict, body: dict, mask: str, allowed: set[str]) -> dict:
    """`resource` with the fields of an updateMask as `body` has them; one it lacks is cleared."""
    paths = {camel(part.strip()) for part in mask.split(",") if part.strip()}
    names = {path.split(".")[0] for path in paths}
    if not names:
        raise ApiError(400, f"updateMask names nothing; can be updated: {sorted(allowed)}.")
    if names - allowed:
        raise not_emulated(f"an update of {', '.join(sorted(names - allowed))}")
    given = {name: body[name] for name in names if body.get(name) is not None}
    if "displayName" in names and not given.get("displayName"):
        raise ApiError(400, "display_name is required; the update would clear it.")
    cleared = (names & paths) - set(given)
    kept = {name: value for name, value in resource.items() if name not in cleared}
    return kept | given | {"updateTime": now()}


def etag(resource: dict) -> str:
    """The same for the same content; what a caller sends back with a change of it."""
    digest = hashlib.sha256(orjson.dumps(resource, option=orjson.OPT_SORT_KEYS)).hexdigest()
    return f"AMEw9y{digest[:32]}"


def check_etag(call: Call, current: str) -> None:
    """Refuse a change of something that is no longer what the caller has read."""
    if (call.body.get("etag") or current) != current:
        raise ApiError(409, "The etag does not match: it was changed meanwhile.", status="ABORTED")


def camel(name: str) -> str:
    """A field's snake_case name as JSON has it."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)
