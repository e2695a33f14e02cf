"""How long the local cloud takes to say what it knows of a resource, under mixed load."""

import concurrent.futures

from tests.bench import served
from tests.bench.serve import measure_load

CLIENTS, SECONDS = (1, 8, 64), 3
NOTE = """`endpoints.get` on kept connections, while one more client lists the models without pause;
the load generator shares the two cores."""


def rows() -> list[dict]:
    """One row a number of clients: gets a second, and their latency."""
    lines = []
    with (
        served.cloud() as (session, endpoint, _, _),
        concurrent.futures.ThreadPoolExecutor(1) as beside,
    ):
        host, port = session.endpoint.removeprefix("http://").split(":")
        asked = {"port": int(port), "host": host, "token": session.credentials.token, "body": ""}
        asked |= {"seconds": SECONDS}
        get, models = f"/v1/{endpoint.resource_name}", f"/v1/{session.parent}/models"
        for n in CLIENTS:
            other = beside.submit(measure_load, asked | {"path": models, "clients": 1})
            measured = measure_load(asked | {"path": get, "clients": n})
            other.result()
            lines.append({
                "clients": n, "get/s": round(measured["per_s"]),
                "p50 ms": round(measured["p50_ms"], 2), "p99 ms": round(measured["p99_ms"], 2),
            })  # fmt: skip
    return lines
