"""The local cloud by itself: what it knows of a resource under mixed load, and how cost grows."""

import concurrent.futures
import tempfile
import time
from pathlib import Path

from helpers.cloud import storage
from tests.bench import served
from tests.bench.serve import measure_load

CLIENTS, SECONDS, OBJECTS = (1, 8, 64), 3, 20_000
ENDPOINTS = (100, 4_000)
NOTE = """Medians by the load generator, which shares the two cores. `get` asks for an endpoint on
kept connections, while one more client lists the models without pause. Objects are of 100 bytes,
each acknowledged when it is on disk, written on 32 connections; the time of the list is that of all
its pages, through `helpers.storage`. Endpoints are found by display name among so many."""


def rows() -> list[dict]:
    """One row a question: `what`, `a second`, `p50 ms`, `p99 ms`."""
    with served.cloud() as (session, endpoint, _, _):
        lines = _gets(session, endpoint)
    with tempfile.TemporaryDirectory(prefix="bench-") as name, served.place(Path(name)) as session:
        lines += _objects(session) + _endpoints(session)
    return lines


def _gets(session, endpoint) -> list[dict]:
    asked, lines = _asked(session), []
    get, models = f"/v1/{endpoint.resource_name}", f"/v1/{session.parent}/models"
    with concurrent.futures.ThreadPoolExecutor(1) as beside:
        for n in CLIENTS:
            other = beside.submit(measure_load, asked | {"path": models, "clients": 1})
            measured = measure_load(asked | {"path": get, "clients": n})
            other.result()
            lines.append(_line(f"get, {n} clients", measured))
    return lines


def _objects(session) -> list[dict]:
    storage.write_bytes(session, b"x", f"gs://{session.bucket}/first")  # the bucket is there
    path = f"/upload/storage/v1/b/{session.bucket}/o?uploadType=media&name=o/{{n}}"
    asked = _asked(session) | {"body": "x" * 100, "path": path, "requests": OBJECTS}
    written = measure_load(asked | {"clients": 32, "seconds": 600})
    start = time.perf_counter()
    found = len(storage.list_uris(session, f"gs://{session.bucket}/o/"))
    took_s = time.perf_counter() - start
    listed = {"per_s": found / took_s, "p50_ms": took_s * 1000}
    return [_line(f"{OBJECTS:,} objects written", written), _line(f"{found:,} listed", listed)]


def _endpoints(session) -> list[dict]:
    asked, lines, made = _asked(session), [], 0
    api = session.service("aiplatform").projects().locations().endpoints()
    path = f"/v1/{session.parent}/endpoints?filter=displayName%3D%22e%207%22"
    for count in ENDPOINTS:
        for number in range(made, count):
            body = {"displayName": f"e {number}"}
            session.call(api.create(parent=session.parent, endpointId=f"e-{number}", body=body))
        made = count
        measured = measure_load(asked | {"path": path, "clients": 1})
        lines.append(_line(f"an endpoint by name among {count:,}", measured))
    return lines


def _asked(session) -> dict:
    host, port = session.endpoint.removeprefix("http://").split(":")
    about = {"port": int(port), "host": host, "token": session.credentials.token, "body": ""}
    return about | {"seconds": SECONDS}


def _line(what: str, measured: dict) -> dict:
    times = {f"{key} ms": measured.get(f"{key}_ms", "") for key in ("p50", "p99")}
    shown = {key: round(value, 2) if value else "" for key, value in times.items()}
    return {"what": what, "a second": f"{measured['per_s']:,.0f}"} | shown
