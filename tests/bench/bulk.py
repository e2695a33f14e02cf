"""Many rows: helpers.predict beside the article's call, Google's SDK and plain JSON."""

import json
import subprocess
import sys
import time

import pandas as pd

import helpers
from helpers import data
from tests.bench import served

SIZES, ROUNDS = (100, 1_000, 10_000, 100_000, 1_000_000), 3
CHUNK = 5_000  # rows of a request where the way itself has no opinion; under 1.5 MB
NOTE = """Rows a second through an endpoint of the local cloud, best of three turns (the ways take
turns); empty where one turn would take over half a minute. The article's call builds its client
anew each time and asks for one row. Google's SDK and the article's call go through `:predict` on a
shared endpoint, `helpers.predict` through `:rawPredict` on a dedicated one. In-process is the same
model on one thread over float32 columns in memory. What bounds `helpers.predict`: three processes
share two cores; of the processor time of a million rows 0.1 s is the client's, 0.07 s the local
cloud's, 0.54 s the model server's, 0.37 s of it the model's own."""


def rows() -> list[dict]:
    """One row a way: rows/s by size, and the ratio to in-process at the largest size it did."""
    table = data.load("game_sales")
    seed = table.train[list(table.features)]
    with served.cloud() as (session, endpoint, shared, folder):
        sdk = _sdk(session, shared)
        most = {
            "helpers.predict": (lambda frame: helpers.predict(endpoint, frame), 1_000_000),
            "plain requests + JSON rows, 5,000 each": (
                lambda frame: _chunks(frame, lambda part: _plain(session, shared, part)), 100_000,
            ),
            "google-cloud-aiplatform Endpoint.predict, 5,000 each": (
                lambda frame: _chunks(frame, lambda part: sdk.predict(instances=part)), 10_000,
            ),
            "the article's predict_json, 5,000 a call": (
                lambda frame: _chunks(frame, lambda part: _article(session, shared, part)), 100_000,
            ),
            "the article's predict_json, one row a call": (
                lambda frame: [_article(session, shared, [r]) for r in frame.to_dict("records")],
                100,
            ),
        }  # fmt: skip
        speed = {}
        for _ in range(ROUNDS):
            for n in SIZES:
                frame = seed.sample(n, replace=True, random_state=0, ignore_index=True)
                for name, (way, largest) in most.items():
                    if n <= largest:
                        start = time.perf_counter()
                        way(frame)
                        took = n / (time.perf_counter() - start)
                        speed[name, n] = max(speed.get((name, n), 0), took)
        limit = _in_process(folder)
    lines = []
    for name, (_, largest) in most.items():
        line = {"way": name}
        line |= {f"{n:,}": _shown(speed.get((name, n))) for n in SIZES}
        line["of in-process"] = f"{speed[name, largest] / limit:.4f}"
        lines.append(line)
    last = {"way": "in-process, no server"} | dict.fromkeys(map("{:,}".format, SIZES), "")
    lines.append(last | {"1,000,000": _shown(limit), "of in-process": "1"})
    return lines


def _shown(value: float | None) -> str:
    return f"{value:,.0f}" if value else ""


def _chunks(frame: pd.DataFrame, send) -> None:
    records = frame.to_dict("records")
    for start in range(0, len(records), CHUNK):
        send(records[start : start + CHUNK])


def _plain(session, shared: str, part: list) -> list:
    import requests

    headers = {"Authorization": f"Bearer {session.credentials.token}"}
    url = f"{session.endpoint}/v1/{shared}:predict"
    return requests.post(url, json={"instances": part}, headers=headers, timeout=60).json()[
        "predictions"
    ]


def _article(session, shared: str, part: list) -> list:
    """The 2020 article's client: built anew for every call."""
    from google.api_core.client_options import ClientOptions
    from googleapiclient import discovery

    options = ClientOptions(api_endpoint=session.endpoint)
    service = discovery.build(
        "aiplatform", "v1", client_options=options, credentials=session.credentials,
        static_discovery=True,
    )  # fmt: skip
    endpoints = service.projects().locations().endpoints()
    return endpoints.predict(endpoint=shared, body={"instances": part}).execute()["predictions"]


def _sdk(session, shared: str):
    from google.cloud import aiplatform

    aiplatform.init(
        project=session.project, location=session.location, api_transport="rest",
        api_endpoint=session.endpoint, credentials=session.credentials,
    )  # fmt: skip
    return aiplatform.Endpoint(shared)


def _in_process(folder) -> float:
    code = f"""
import time
from pathlib import Path
from helpers.emulator.servers.saved_model import load
_, signatures = load(Path({str(folder.parent)!r}))
import numpy as np
one = signatures["serving_default"]
n, rows, best = 20_000, 0, 0
tensors = [np.random.rand(n).astype("float32") for _ in one.inputs]
one.call(*tensors)
for _ in range(3):
    start = time.perf_counter()
    for _ in range(50): one.call(*tensors)
    best = max(best, 50 * n / (time.perf_counter() - start))
print(best)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=served.ROOT
    )
    return float(done.stdout.split()[-1])


if __name__ == "__main__":
    print(json.dumps(rows(), indent=1))
