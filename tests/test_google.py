"""Google mode to the letter: the requests of a whole road, as they would leave for Google's hosts.

Nothing is set but CLOUD, PROJECT and BUCKET; the transport alone is led to a local cloud. What is
sent is compared with tests/google_wire.txt, so that a change shows in a diff:

    UPDATE_WIRE=1 python -m pytest tests/test_google.py
"""

import json
import os
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httplib2
import numpy as np
import pandas as pd
import pytest
from google.oauth2.credentials import Credentials

import helpers
from helpers import storage
from helpers.emulator.front import app
from helpers.errors import NotFoundError
from tests.emulator.conftest import Emulator, start
from tests.test_sent import fits
from tests.test_train import SMALL, notebook

app.App(None)  # registers the methods
WIRE = Path(__file__).with_name("google_wire.txt")
PROJECT = "wire-project"
CHANGING = {  # what differs from run to run
    r"\d{8}-\d{6}": "DATE",
    r"generation=\d+": "generation=NUMBER",
    r"\d{4}-\d\d-\d\dT[\d:.%A]+Z?": "TIME",
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22,}": "ID",
    r"(?<=[:/-])[0-9a-f]{16}\b": "HASH",
    r"(?<=-)[0-9a-f]{6}\b": "HEX",
    r"(?<=made-in\": \")[0-9a-f]{32}": "MARK",
    r"(\w+Jobs|operations|job_id=\W{1,3})/?\d{6,}": r"\1/NUMBER",
    r"(?<=deployedModelId\": \")\d+|(?<=\"id\": \")\d+": "NUMBER",
}


@pytest.fixture
def wire(tmp_path, monkeypatch):
    """Leads calls to Google's hosts to a local cloud; gives the list of what was sent."""
    cloud = start(tmp_path / "state")
    yield led_to(cloud, monkeypatch)
    cloud.stop()


def led_to(cloud: Emulator, monkeypatch) -> list[tuple]:
    """From now on, what is sent to Google's hosts goes to this local cloud; the list of it:
    (HTTP method, host, path and query, body, response, content)."""
    sent, request = [], httplib2.Http.request

    def led(self, uri, method="GET", body=None, headers=None, **more):
        parts = urlsplit(uri)
        if parts.hostname == "127.0.0.1":
            return request(self, uri, method, body, headers, **more)
        assert parts.scheme == "https"
        assert re.fullmatch(r".*\.(googleapis\.com|prediction\.vertexai\.goog)", parts.hostname)
        headers = {k: v for k, v in (headers or {}).items() if k.lower() != "host"}
        if parts.hostname.endswith(".goog"):
            headers["host"] = parts.hostname
        address = f"{cloud.url}{parts.path}" + (f"?{parts.query}" if parts.query else "")
        answer = request(self, address, method, body, headers, **more)
        sent.append((method, parts.hostname, f"{parts.path}?{parts.query}", body, *answer))
        return answer

    monkeypatch.setattr(httplib2.Http, "request", led)
    monkeypatch.setattr("google.auth.default", lambda **_: (Credentials(token=cloud.token), None))
    return sent


def written(sent: list[tuple]) -> list[str]:
    """One line a request, first seen first; what is only asked again stands once."""
    lines = {}
    for method, host, path, body, *_ in sent:
        if "/operations/" in path or "timestamp>=" in str(body):
            continue  # how often is a matter of speed
        if not path.startswith("/upload/") and body:
            body = json.dumps(json.loads(body), sort_keys=True)
        elif body is not None:
            body = "<content>"
        line = f"{method} {host} {unquote(path.rstrip('?'))} {body or ''}".rstrip()
        for pattern, word in CHANGING.items():
            line = re.sub(pattern, word, line)
        lines[re.sub(r'"b64": "[^"]+"', '"b64": "…"', line)] = None
    return list(lines)


def assert_kept_to_itself(token: str, folder: Path) -> None:
    """No log, executed notebook or parameter holds a cloud's token; only its own files do."""
    kept = [path for path in folder.rglob("*") if path.is_file()]
    assert {"report.html", "parameters.json"} <= {path.name for path in kept}
    holders = {path.name for path in kept if token.encode() in path.read_bytes()}
    assert {"emulator.json"} <= holders <= {"emulator.json", "state.sqlite3", "state.sqlite3-wal"}


def assert_official(sent: list[tuple]) -> None:
    """Every call that succeeded, and its answer, is of the official types."""
    fitting = {
        fits(method, *target.lstrip("/").split("?", 1), body, content)
        for method, _, target, body, response, content in sent
        if response.status == 200
    }
    services = {service for service, _ in fitting}
    assert services >= {"aiplatform", "storage", "logging", "artifactregistry"}
    seen = {called for service, called in fitting if service == "aiplatform"}
    assert seen >= {
        "customJobs.create", "customJobs.get", "models.upload", "models.list",
        "models.listVersions", "hyperparameterTuningJobs.create", "hyperparameterTuningJobs.get",
        "batchPredictionJobs.create", "batchPredictionJobs.get", "endpoints.create",
        "endpoints.deployModel", "endpoints.patch", "endpoints.mutateDeployedModel",
        "endpoints.undeployModel", "endpoints.delete",
    }  # fmt: skip
    assert {"endpoints.predict", "endpoints.rawPredict"} & seen


# What Colab lacks and only a local cloud or the running of a notebook needs.
ELSEWHERE = ("papermill", "optuna", "uvicorn", "starlette", "orjson", "httptools", "uvloop")


@pytest.mark.long
def test_from_an_empty_project_to_a_served_model_and_back(
    wire, trained, tmp_path, capsys, monkeypatch
):
    for name in (*ELSEWHERE, "helpers.emulator"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it fails
    session = helpers.connect("google", project=PROJECT, bucket=f"{PROJECT}-bucket")
    assert (session.endpoint, session.location) == ("", "us-central1")
    helpers.setup(session, apply=True)
    job = helpers.train(session, str(notebook(tmp_path, "small.ipynb", SMALL)))
    assert job.state == "SUCCEEDED"
    search = {"search": {"EPOCHS": (1, 3)}, "metric": "epochs", "trials": 1}
    assert helpers.tune(session, str(notebook(tmp_path, "small.ipynb", SMALL)), **search).best
    versions = []
    for number in (1, 2):
        uri = f"gs://{session.bucket}/made/{number}/model"
        storage.upload_folder(session, trained / "model", uri)
        versions.append(helpers.register(session, uri, name="prices", aliases=["candidate"]))
    endpoint = helpers.deploy(session, versions[0])
    assert endpoint.url.startswith("https://prices-")
    endpoint = helpers.deploy(session, versions[1], traffic_percent=10)
    assert endpoint.traffic == {"1": 90, "2": 10}
    rows = pd.DataFrame({"size": [20.0, None], "kind": ["a", "b"]})
    running, candidate = (helpers.batch_predict(session, version, rows) for version in versions)
    pd.testing.assert_frame_equal(running, candidate)
    assert helpers.promote(session, versions[1]).traffic == {"1": 0, "2": 100}
    assert helpers.roll_back(session, name="prices").traffic == {"1": 100, "2": 0}
    assert np.isfinite(helpers.predict(endpoint, rows)["price"]).all()
    assert len(helpers.predict_json(PROJECT, "prices", {"size": 20.0, "kind": "a"}, "v1")) == 1
    assert_kept_to_itself(session.credentials.token, tmp_path / "state")
    assert session.credentials.token not in repr([session, job, endpoint, *wire, *job.logs()])
    bill = helpers.costs(session)
    assert set(bill["what"]) == {"endpoint", "bucket", "images"}
    assert bill["price"].str.startswith("look up: https://").all()
    helpers.cleanup(session, objects=True, images=True)
    assert set(helpers.costs(session)["what"]) == {"bucket"}
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, "prices")
    said = capsys.readouterr().out
    assert "Nothing that bills by the hour is left." in said
    assert "this tab may be closed" in said
    assert session.credentials.token not in said

    assert_official(wire)
    lines = written(wire)
    if os.environ.get("UPDATE_WIRE"):
        WIRE.write_text("\n".join(lines) + "\n")
    assert sorted(lines) == sorted(WIRE.read_text().splitlines())
    assert not [line for line in lines if "Bearer" in line or "127.0.0.1" in line]
