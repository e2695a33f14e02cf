"""TensorFlow Serving's REST contract on a SavedModel, as a process of its own.

    python model_server.py --model_name=M --model_base_path=DIR --rest_api_port=8501

takes tensorflow_model_server's arguments (those without a meaning here are ignored). It imports
saved_model.py, which stands beside it, and ends when its standard input closes.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import concurrent.futures
import functools
import gc
import json
import os
import re
import signal
import socket
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import orjson
import pybase64

if TYPE_CHECKING:
    from saved_model import Signature

BATCH_ROWS = 256  # one run of the model takes together at most about this many waiting rows
BIG_BYTES = 64 * 1024  # larger requests run by themselves, beside the small ones
BIG_AT_ONCE = 4
WAITING = 2000  # small requests; more are refused, not kept
BIG_WAITING = 32
NUMBERS = {float, int}
QUICK_S = 0.005  # a model that needs longer runs on a thread of its own, beside the reading


class RequestError(Exception):
    """The request does not fit the model; the message is the answer's `error`."""


@dataclass
class Work:
    """One parsed request."""

    signature: Signature
    columns: dict[str, list]  # input → values
    rows: int
    row_form: bool
    answer: asyncio.Future | None = None


# --- requests and answers


def parse(body: bytes, signatures: dict[str, Signature]) -> Work:
    """Raises: RequestError."""
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        try:
            request = json.loads(body)  # takes NaN and Infinity, as the original does
        except (ValueError, RecursionError) as error:
            raise RequestError(f"The request is not JSON: {error}") from error
    if not isinstance(request, dict):
        raise RequestError("The request must be a JSON object.")
    name = request.get("signature_name", "serving_default")
    if not isinstance(name, str) or name not in signatures:
        raise RequestError(f"Serving signature name: {name!r} not found; there: {[*signatures]}")
    signature = signatures[name]
    if ("instances" in request) == ("inputs" in request):
        raise RequestError(
            'Expected either "instances" (rows) or "inputs" (columns) in the request.'
        )
    if "inputs" in request:
        given = request["inputs"]
        named = isinstance(given, dict) and set(given) != {"b64"}
        columns = given if named else {next(iter(signature.inputs)): given}
        _check_names(columns, signature)
        sizes = {len(c) if isinstance(c, list) else 0 for c in columns.values()}
        return Work(signature, columns, max(sizes, default=0) if len(sizes) == 1 else 0, False)
    rows = request["instances"]
    if not isinstance(rows, list) or not rows:
        raise RequestError('"instances" must be a list with at least one row.')
    if isinstance(rows[0], dict) and set(rows[0]) != {"b64"}:
        _check_names(rows[0], signature)
        size = len(signature.inputs)
        for i, row in enumerate(rows):
            if not isinstance(row, dict) or len(row) != size:
                raise RequestError(
                    f"Row {i} of instances must be an object of {size} named inputs."
                )
        try:
            columns = {name: [row[name] for row in rows] for name in signature.inputs}
        except KeyError as error:
            raise RequestError(f"A row of instances lacks the input {error}.") from error
    elif len(signature.inputs) == 1:
        columns = {next(iter(signature.inputs)): rows}
    else:
        raise RequestError(
            f"Rows must be objects: the signature has the inputs {[*signature.inputs]}."
        )
    return Work(signature, columns, len(rows), True)


def _check_names(given: dict, signature: Signature) -> None:
    wanted = signature.inputs
    missing, unknown = [n for n in wanted if n not in given], [n for n in given if n not in wanted]
    if missing or unknown:
        raise RequestError(f"Inputs missing: {missing}, unknown: {unknown}; expected {[*wanted]}.")


def run(works: list[Work]) -> list[bytes | Exception]:
    """Answer requests of one signature; together where that is possible."""
    signature = works[0].signature
    try:
        names = list(signature.inputs)
        columns = works[0].columns
        if len(works) > 1:
            columns = {n: [v for work in works for v in work.columns[n]] for n in names}
        if signature.columns and {t for n in names for t in map(type, columns[n])} <= NUMBERS:
            given = _matrix([columns[n] for n in names])  # costs less than one array an input
        else:
            given = [_array(n, columns[n], signature.inputs[n]) for n in names]
        arrays = signature.call(*given)
        total = sum(work.rows for work in works)
        alike = all(array.ndim and len(array) == total for array in arrays)
        if len(works) == 1:
            return [_whole(works[0], arrays, alike)]
        if not alike:
            raise RequestError("the outputs are not one a row")
        values = [_tokens(n, a) for n, a in zip(signature.outputs, arrays, strict=True)]
        answers, start = [], 0
        for work in works:
            part = slice(start, start + work.rows)
            answers.append(_render(work, [tokens[part] for tokens in values]))
            start += work.rows
        return answers
    except Exception as error:
        if getattr(error, "error_code", None) == 3:  # TensorFlow's INVALID_ARGUMENT
            error = RequestError(str(error)[:500])
        # One request's mistake must not be another's: each runs alone.
        return [error] if len(works) == 1 else [run([work])[0] for work in works]


def _whole(work: Work, arrays: list, alike: bool) -> bytes:
    if work.row_form and not alike:
        raise RequestError("The model's outputs are not one a row; use the column form (inputs).")
    named = zip(work.signature.outputs, arrays, strict=True)
    if alike:
        return _render(work, [_tokens(name, array) for name, array in named])
    parts = [b"%b:%b" % (orjson.dumps(n), _tokens(n, a[None])[0]) for n, a in named]
    return b'{"outputs":%b}' % (parts[0].partition(b":")[2] if len(parts) == 1 else _object(parts))


def _render(work: Work, values: list[list[bytes]]) -> bytes:
    """`values`: for each output one JSON text a row."""
    keys = [orjson.dumps(name) for name in work.signature.outputs]
    if not work.row_form:
        lists = [b"[%b]" % b",".join(column) for column in values]
        named = [b"%b:%b" % pair for pair in zip(keys, lists, strict=True)]
        return b'{"outputs":%b}' % (lists[0] if len(keys) == 1 else _object(named))
    if len(keys) == 1:
        return b'{"predictions":[%b]}' % b",".join(values[0])
    row = _object([key.replace(b"%", b"%%") + b":%b" for key in keys])
    return b'{"predictions":[%b]}' % b",".join([row % texts for texts in zip(*values, strict=True)])


def _object(parts: list[bytes]) -> bytes:
    return b"{%b}" % b",".join(parts)


def _tokens(name: str, array) -> list[bytes]:
    """One JSON text a row of an output."""
    if array.dtype.kind in "OSU":
        as_bytes = name.endswith("_bytes")  # TensorFlow Serving's convention for binary outputs
        try:
            return [orjson.dumps(_readable(value, as_bytes)) for value in array.tolist()]
        except UnicodeDecodeError as error:  # the original writes JSON that nobody can read
            raise RequestError(
                f'Output {name!r} holds bytes that are no UTF-8 text. Name it "{name}_bytes": '
                'such an output travels as {"b64": ...}.'
            ) from error
    if array.dtype.kind in "fV":
        if array.dtype.itemsize == 2:  # half precision; of bfloat16 NumPy knows no more than that
            array = array.astype("float32")
        if not np.isfinite(array).all():
            return [json.dumps(row).encode() for row in array.tolist()]  # NaN, Infinity
    if array.ndim == 1:
        return orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].split(b",")
    array = array.copy(order="C")
    return [orjson.dumps(row, option=orjson.OPT_SERIALIZE_NUMPY) for row in array]


def _readable(value, as_bytes: bool):
    if isinstance(value, list):
        return [_readable(v, as_bytes) for v in value]
    if as_bytes:
        return {"b64": pybase64.b64encode(value).decode()}
    return value.decode() if isinstance(value, bytes) else str(value)


def _array(name: str, values, spec) -> np.ndarray:
    if spec.dtype == "string":
        values = _binary(values)
    elif isinstance(values, list) and bool in set(map(type, values)) and spec.dtype != "bool":
        raise RequestError(f"Input {name!r} is {spec.dtype.name}; found true or false.")
    try:
        array = spec.array(values)
    except (TypeError, ValueError) as error:
        said = str(error).splitlines()[0][:300]
        kind = f"{spec.dtype.name}, shape {spec.shape}"
        raise RequestError(
            f"Input {name!r} ({kind}) can't be made of the values: {said}"
        ) from error
    if not spec.shape.is_compatible_with(np.shape(array)):
        raise RequestError(f"Input {name!r} has shape {np.shape(array)}; expected {spec.shape}.")
    return array


def _matrix(columns: list[list]) -> list[np.ndarray]:
    try:
        with np.errstate(over="ignore"):  # beyond float32 is infinity, as TensorFlow makes it
            return [*np.array(columns, np.float32)]
    except (ValueError, OverflowError) as error:
        raise RequestError(f"The inputs can't be made of the values: {error}") from error


def _binary(value):
    """Values of a string input with every {"b64": text} decoded."""
    if isinstance(value, list):
        return value if all(type(v) is str for v in value) else [_binary(v) for v in value]
    if isinstance(value, dict) and set(value) == {"b64"}:
        try:
            return pybase64.b64decode(value["b64"], validate=True)
        except (ValueError, TypeError) as error:
            raise RequestError(f"A b64 value is not base64: {error}") from error
    return value


# --- the server


class App:
    """Routes of one model; all small requests that came meanwhile run as one batch."""

    def __init__(
        self, name: str, version: str, signatures: dict[str, Signature], *, any_route: bool = False
    ):
        self.status, self.signatures = (name, version), signatures
        kind = r".*" if any_route else rf"/v1/models/{re.escape(name)}(/versions/{version})?"
        route = re.compile(kind + r"(?P<verb>/metadata|:predict)?")
        self.route = functools.lru_cache(100)(route.fullmatch)
        self.waiting: collections.deque[Work] = collections.deque()
        self.serving, self.took_s = False, 0.0
        self.thread = concurrent.futures.ThreadPoolExecutor(1)
        self.pool = concurrent.futures.ThreadPoolExecutor(BIG_AT_ONCE)
        self.big = 0  # large requests taken in and not answered yet

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        status, content, headers = 200, b"{}", [(b"content-type", b"application/json")]
        try:
            status, content = await self._answer(scope, receive)
        except RequestError as error:
            status, content = 400, orjson.dumps({"error": str(error)})
        except Exception as error:
            status, content = (
                500,
                orjson.dumps({"error": f"{type(error).__name__}: {error}"[:2000]}),
            )
        if status == 503:
            headers.append((b"retry-after", b"1"))
        headers.append((b"content-length", b"%d" % len(content)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def _answer(self, scope, receive) -> tuple[int, bytes]:
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        body = b"".join(parts)
        match = self.route(scope["path"])
        if match is None:
            return 404, orjson.dumps({"error": f"Servable not found: {scope['path']}"})
        if scope["method"] == "GET" and match["verb"] != ":predict":
            return 200, orjson.dumps(self._metadata() if match["verb"] else self._status())
        if scope["method"] != "POST" or match["verb"] == "/metadata":
            return 405, orjson.dumps({"error": f"{scope['method']} is not for {scope['path']}"})
        loop = asyncio.get_running_loop()
        if len(self.waiting) >= WAITING or self.big >= BIG_WAITING:
            return 503, orjson.dumps({"error": "Too many requests wait already; try again."})
        if len(body) > BIG_BYTES:
            self.big += 1
            try:
                return 200, await loop.run_in_executor(self.pool, self._alone, body)
            finally:
                self.big -= 1
        work = parse(body, self.signatures)
        work.answer = loop.create_future()
        self.waiting.append(work)
        if not self.serving:
            self.serving = True
            loop.call_soon(self._serve, loop, 0)
        return 200, await work.answer

    def _alone(self, body: bytes) -> bytes:
        answer = run([parse(body, self.signatures)])[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _serve(self, loop: asyncio.AbstractEventLoop, waited: int) -> None:
        if waited < len(self.waiting) < BATCH_ROWS:  # as long as more arrive they are read first
            loop.call_soon(self._serve, loop, len(self.waiting))
            return
        works, rows = [], 0
        while self.waiting and rows < BATCH_ROWS:
            works.append(self.waiting.popleft())
            rows += works[-1].rows
        if self.took_s < QUICK_S:  # here: no thread to wake, none to share the interpreter with
            self._deliver(loop, self._batch(works))
        else:
            running = loop.run_in_executor(self.thread, self._batch, works)
            running.add_done_callback(lambda done: self._deliver(loop, done.result()))

    def _batch(self, works: list[Work]) -> list[tuple[Work, bytes | Exception]]:
        groups: dict[tuple, list[Work]] = {}
        for work in works:
            together = work.rows and work.signature.by_rows
            groups.setdefault((id(work.signature), together or id(work)), []).append(work)
        start = time.perf_counter()
        done = [pair for g in groups.values() for pair in zip(g, run(g), strict=True)]
        self.took_s = time.perf_counter() - start
        return done

    def _deliver(self, loop: asyncio.AbstractEventLoop, done: list) -> None:
        for work, answer in done:
            if not work.answer.done():
                failed = isinstance(answer, Exception)
                (work.answer.set_exception if failed else work.answer.set_result)(answer)
        self.serving = bool(self.waiting)
        if self.serving:
            loop.call_soon(self._serve, loop, 0)

    def _status(self) -> dict:
        fine = {"error_code": "OK", "error_message": ""}
        version = {"version": self.status[1], "state": "AVAILABLE", "status": fine}
        return {"model_version_status": [version]}

    def _metadata(self) -> dict:
        def about(specs: dict) -> dict:
            return {n: {"dtype": f"DT_{s.dtype.name.upper()}".replace("FLOAT32", "FLOAT"),
                        "tensor_shape": {"dim": [{"size": str(d or -1), "name": ""} for d in
                                                 s.shape or []],
                                         "unknown_rank": s.shape.rank is None},
                        "name": n} for n, s in specs.items()}  # fmt: skip

        signatures = {
            name: {"inputs": about(s.inputs), "outputs": about(s.outputs),
                   "method_name": "tensorflow/serving/predict"}
            for name, s in self.signatures.items()
        }  # fmt: skip
        spec = {"name": self.status[0], "signature_name": "", "version": self.status[1]}
        return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--model_name", default="default")
    parser.add_argument("--model_base_path", type=Path, required=True)
    parser.add_argument("--rest_api_port", type=int, required=True)
    parser.add_argument("--prebuilt", action="store_true")
    arguments, _ = parser.parse_known_args()
    # Taken before the long imports: a port that is in use is known at once.
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", arguments.rest_api_port))
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}
    import uvicorn
    from saved_model import load

    prebuilt = arguments.prebuilt  # Google's container: the model itself, at whichever route
    try:
        version, signatures = load(arguments.model_base_path, direct=prebuilt)
    except Exception as error:
        sys.exit(f"The model can't be served: {type(error).__name__}: {error}")
    app = App(arguments.model_name, version, signatures, any_route=prebuilt)
    sys.setswitchinterval(0.001)  # a model's thread waits less for the one that reads requests
    gc.collect()
    gc.freeze()  # TensorFlow's own objects stay; looking through them again costs milliseconds
    config = uvicorn.Config(app, access_log=False, log_level="warning", lifespan="off",
                            proxy_headers=False, server_header=False, date_header=False,
                            timeout_keep_alive=3600, timeout_graceful_shutdown=5)  # fmt: skip
    print(f"Serving {arguments.model_name} version {version}", flush=True)
    uvicorn.Server(config).run(sockets=[listener])


def _leave_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    main()
