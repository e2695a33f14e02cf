"""Single-row requests: our model server and the proxy before it, the bare stack, and rivals."""

import contextlib
import json
import statistics
import subprocess
import sys
from pathlib import Path

from helpers.emulator.services import ports
from tests.bench import served

CLIENTS, SECONDS, ROUNDS = (1, 8, 32), 2, 3
NOTE = """Requests a second with 1, 8 and 32 clients on kept connections, one row each; medians of
three rounds, the servers taking turns; the load generator shares the two cores. `no-op` reads the
request and answers a constant on the same stack (uvicorn, uvloop, httptools). The pipe is the least
that standing before a server costs: a process that passes on what arrives, unread; the local cloud
reads who asks, for what, and chooses the version; it makes the same system calls as the pipe, and
takes some 75 µs of processor time a request with one client (the pipe 47), 30 with 32 (19).
In-process calls are the model's own call in a session, one row a call, without any server. What
bounds ours with 32 clients is one core's Python: a request takes 45 µs of it, the no-op's 21; the
graph takes 2 to 3 of them, as waiting rows run together, the rest is numbers read from JSON, put
into columns and written again, and each request woken when its batch is done. It has orjson, one
run for all rows that wait, and runs a quick model on the thread that reads."""


def rows() -> list[dict]:
    """One row a server: requests/s by clients, latency with one client, ratio to no-op at 32."""
    body = json.dumps({"instances": served.instances(1)})
    with served.cloud() as (session, endpoint, _, folder), contextlib.ExitStack() as stack:
        path = "/v1/models/model:predict"
        ways = {}
        kinds = {
            "no-op on the same stack": "noop", "ours": "ours", "FastAPI + pydantic": "fastapi",
            "KServe": "kserve",
        }  # fmt: skip
        for name, kind in kinds.items():
            (port,) = ports.free()
            stack.enter_context(served.server(kind, port, folder))
            ways[name] = {"port": port, "path": path, "host": "127.0.0.1", "token": "-"}
        name, (port,) = "ours behind a bare pipe", ports.free()
        stack.enter_context(served.server("pipe", port, folder, ways["ours"]["port"]))
        ways[name] = ways["ours"] | {"port": port}
        address = endpoint.url.removeprefix("http://")
        ways["ours behind the local cloud's endpoint"] = {
            "port": int(address.split(":")[1].split("/")[0]), "host": endpoint.host,
            "path": f"/{address.partition('/')[2]}:rawPredict", "token": session.credentials.token,
        }  # fmt: skip
        measured = {(name, n): [] for name in ways for n in CLIENTS}
        for _ in range(ROUNDS):
            for n in CLIENTS:
                for name, way in ways.items():
                    asked = way | {"body": body, "clients": n, "seconds": SECONDS}
                    measured[name, n].append(measure_load(asked))
        alone = _in_process(folder)
    limit = _middle(measured["no-op on the same stack", 32], "per_s")
    direct = {n: _middle(measured["ours", n], "per_s") for n in CLIENTS}
    lines = []
    for name in ways:
        line = {"server": name}
        line |= {f"{n} clients/s": round(_middle(measured[name, n], "per_s")) for n in CLIENTS}
        line["p50 ms"] = round(_middle(measured[name, 1], "p50_ms"), 2)
        line["p99 ms"] = round(_middle(measured[name, 1], "p99_ms"), 2)
        line["of no-op at 32"] = round(_middle(measured[name, 32], "per_s") / limit, 2)
        hop = [f"{1 - _middle(measured[name, n], 'per_s') / direct[n]:.0%}" for n in (1, 32)]
        line["slower than ours at 1, 32"] = ", ".join(hop) if "behind" in name else ""
        lines.append(line)
    empty = dict.fromkeys(lines[0], "")
    lines.append(empty | {"server": "in-process calls, no server", "1 clients/s": round(alone)})
    return lines


def _middle(runs: list[dict], key: str) -> float:
    return statistics.median(run[key] for run in runs)


def measure_load(asked: dict) -> dict:
    """Run the load generator in a process of its own; what it measured (see load.py)."""
    script = Path(__file__).with_name("load.py")
    done = subprocess.run(
        [sys.executable, script],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    measured = json.loads(done.stdout)
    if measured["failed"]:
        raise RuntimeError(f"{measured['failed']} requests failed: {asked['path']}")
    return measured


def _in_process(folder: Path) -> float:
    """Calls a second of the model, in a process of its own."""
    code = f"""
import time, sys
from pathlib import Path
from helpers.emulator.servers.saved_model import load
_, signatures = load(Path({str(folder.parent)!r}))
import numpy as np
one = signatures["serving_default"]
tensors = [np.ones(1, np.float32)] * len(one.inputs)
for _ in range(200): one.call(*tensors)
start, n = time.perf_counter(), 0
while time.perf_counter() < start + 3:
    one.call(*tensors); n += 1
print(n / 3)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=served.ROOT
    )
    return float(done.stdout.split()[-1])
