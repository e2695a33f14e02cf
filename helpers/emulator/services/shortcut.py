"""The short way of a plain prediction request, from the client's socket to the model server's.

A `predict` or `rawPredict` request takes it that comes by itself, whole or in pieces, with a length
and a head of single plain headers, from the holder of emulator.json's token, to an endpoint whose
model server has a connection open and free. It is what clients send while they predict.

Everything else is left to uvicorn and `front.app`, with every byte of it: all other methods and
callers, whatever is to be refused, chunked, pipelined or of HTTP/1.0, requests to a model server
that is yet to start or has no connection free, any call while faults are asked for; and a request
whose model server went away. Both ways decide and answer with the same functions.
"""

import asyncio
import functools
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import Response
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from helpers.emulator.front import app as front
from helpers.emulator.front.calls import ApiError
from helpers.emulator.services import metrics, predictions
from helpers.emulator.services.predictions import ID, LIMIT_BYTES
from helpers.emulator.services.serving import FRAMING, Answer, Connection, plain_headers

FIRST_LINE = re.compile(rb"POST /(v1(?:beta1)?/[\w/-]+:(?:p|rawP)redict) HTTP/1\.1\r\n")
# With one of these a request means something else, or is framed in another way.
UNUSUAL = FRAMING | {b"expect", b"origin", b"sec-fetch-site", b"x-http-method-override"}
HEAD_BYTES, HEADS = 8192, 1000
METHODS = {f"{ID}predict", f"{ID}rawPredict"}


@dataclass(frozen=True)
class Plain:
    """What the head of a plain request says; a client's next request mostly has the same one."""

    head: bytes
    size_bytes: int  # of the request, head and body
    endpoint: str
    host: str
    kind: str  # of the body
    raw: bool  # rawPredict


class ClientConnection(HttpToolsProtocol):
    """A client's connection: uvicorn's, with a short way beside its own."""

    plain: Plain | None = None  # the request that has arrived in part, or is under way
    connection: Connection | None = None  # to the model server, while it is under way
    before: Plain | None = None  # the last request, where nothing else came since
    between = True  # uvicorn's parser has seen whole requests only
    leaving = False
    due_s = 0.0  # when the request under way, or the wait for the next one, has taken too long
    # One timer serves all requests of a connection: one each would cost a third of the short way.
    timer: asyncio.TimerHandle | None = None
    alarm_s = 0.0  # when it goes off

    def data_received(self, data: bytes) -> None:
        if self.connection:  # the next request, before the answer to this one
            self.later.append(data)
            self.flow.pause_reading()
            return
        if self.plain is None:
            before, self.due_s = self.before, 0
            if not (before and data.startswith(before.head) and not self.flow.write_paused):
                self.before = before = self._plain(data)
            if before is None:
                super().data_received(data)
                return
            self.plain, self.parts, self.missing, self.later = before, [], before.size_bytes, []
        self.parts.append(data)
        self.missing -= len(data)
        if self.missing < 0 or (self.missing == 0 and not self._ask()):
            self._leave_to_uvicorn()

    def _plain(self, data: bytes) -> Plain | None:
        if not data.startswith(b"POST /v1") or not self.between or self.app.faults.shares:
            return None
        if (self.cycle and not self.cycle.response_complete) or self.flow.write_paused:
            return None
        self._unset_keepalive_if_required()
        return _read_head(self.app, data[: data.find(b"\r\n\r\n", 0, HEAD_BYTES) + 4])

    def _leave_to_uvicorn(self) -> None:
        data = b"".join(self.parts + self.later)
        self.plain, self.before, self.parts, self.later = None, None, [], []
        super().data_received(data)
        if self.leaving:
            super().shutdown()

    def _ask(self) -> bool:
        """Send the request on; False: it is not for the short way, and nothing was sent."""
        plain = self.plain
        route = predictions.routes.get(plain.endpoint)
        body = b"".join(self.parts)[len(plain.head) :]
        if not route or not route.targets or len(body) > LIMIT_BYTES[bool(route.host)]:
            return False
        try:
            if plain.host != route.host:
                predictions.check_host(route, plain.endpoint, plain.host)
            if not plain.raw:
                body = predictions.check_instances(body)
        except ApiError:
            return False
        target = predictions.choose(route)
        self.connection = target.server.kept()
        if self.connection is None:
            return False
        target.server.under_way += 1
        self.route, self.target, self.app.last_call_s = route, target, time.monotonic()
        if target.idle_s:
            predictions.idle[target.server] = target.idle_s, self.app.last_call_s
        self.begun_s = time.perf_counter()
        self._watch(self.begun_s + route.timeout_s)
        self.connection.ask(target.server.request(body, plain.kind), self._answered)
        return True

    def _answered(self, answer: Answer | EOFError) -> None:
        took_s, plain, target = time.perf_counter() - self.begun_s, self.plain, self.target
        if not isinstance(answer, Answer) or answer.status not in STATUS_LINE:
            self._end()  # died, or undeployed: the other way finds out
            if not self.transport.is_closing():
                self._leave_to_uvicorn()
            return
        status, kind, body = answer
        try:
            if not plain.raw:
                status, body = 200, predictions.completed(target, answer)
            said = plain.raw, target, status, kind, len(body)
            self._write(_head(*said, self.leaving, *self.server_state.default_headers), body)
        except ApiError as error:
            self._refuse(error)
        metrics.record(plain.endpoint, target.about["deployedModelId"], answer.status, took_s)
        self._end()
        self._go_on()

    def _refuse(self, error: ApiError) -> None:
        response, more = front.refusal(error), self.server_state.default_headers
        self._write(_lines(response, self.leaving, more), response.body)

    def _write(self, head: bytes, body: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(head + body)

    def _end(self) -> None:
        self.connection, self.due_s = None, 0
        self.target.server.under_way -= 1

    def _go_on(self) -> None:
        later, self.plain, self.parts, self.later = b"".join(self.later), None, [], []
        self.server_state.total_requests += 1
        if self.leaving:
            self.transport.close()
        if not self.transport.is_closing():
            self._watch(time.perf_counter() + self.timeout_keep_alive)
            self.flow.resume_reading()
            if later:
                self.data_received(later)

    def _watch(self, due_s: float) -> None:
        self.due_s = due_s
        if self.timer is None or due_s < self.alarm_s:
            if self.timer:
                self.timer.cancel()
            self.alarm_s = due_s
            self.timer = self.loop.call_later(due_s - time.perf_counter(), self._look)

    def _look(self) -> None:
        self.timer = None
        if self.due_s > time.perf_counter():
            self._watch(self.due_s)
        elif self.connection:
            self.connection.close()
            self._refuse(predictions.late(self.route))
            self._end()
            self._go_on()
        elif self.due_s:
            self.transport.close()

    # --- what uvicorn tells

    def on_message_begin(self) -> None:
        self.between = False
        super().on_message_begin()

    def on_message_complete(self) -> None:
        self.between = not self.parser.should_upgrade()
        super().on_message_complete()

    def connection_lost(self, error: Exception | None) -> None:
        if self.timer and not self.connection:
            self.timer.cancel()
        super().connection_lost(error)

    def shutdown(self) -> None:
        self.leaving = True
        if self.plain is None:
            super().shutdown()


def _lines(response: Response, leaving: bool, more: Iterable[tuple[bytes, bytes]]) -> bytes:
    """An answer's head as uvicorn writes it."""
    headers = [*more, *response.raw_headers, *([(b"connection", b"close")] if leaving else [])]
    lines = [b"%b: %b\r\n" % header for header in headers]
    return b"".join([STATUS_LINE[response.status_code], *lines, b"\r\n"])


@functools.lru_cache(HEADS)
def _head(
    raw: bool, target: predictions.Target, status: int, kind: str, size_bytes: int, leaving: bool,
    *more: tuple[bytes, bytes],
) -> bytes:  # fmt: skip
    """The head of an answer of this size; the next one mostly has the same."""
    body = bytes(size_bytes)
    whole = predictions.passed_on(target, Answer(status, kind, body))
    return _lines(whole if raw else predictions.predicted(body), leaving, more)


@functools.lru_cache(HEADS)
def _read_head(app: front.App, head: bytes) -> Plain | None:
    """What is the same for every request with this head; None: it is not a plain one."""
    first = FIRST_LINE.match(head)
    headers = plain_headers(head[first.end() :]) if first else {}
    size = headers.get(b"content-length", b"")
    if headers.keys() & UNUSUAL or not size.isdigit():
        return None
    request = Request({"type": "http", "method": "POST", "headers": [*headers.items()]})
    try:
        front.refuse_strangers(request)
        if front.caller_of(app.cloud, request) is not None:
            return None
        method, _, values = front.route("POST", first[1].decode())
    except ApiError:
        return None
    if method.id not in METHODS or int(size) > LIMIT_BYTES[True]:
        return None
    kind = request.headers.get("content-type", "application/json")
    raw, host = method.id.endswith(".rawPredict"), request.headers["host"].split(":")[0].lower()
    return Plain(head, len(head) + int(size), values["endpoint"], host, kind, raw)
