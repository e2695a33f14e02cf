"""`make google-check` against a local cloud in google mode: it holds, and whatever fails, it leaves
nothing behind and tells what happened without a name."""

import importlib.util
import json
import re
import uuid
from pathlib import Path
from types import SimpleNamespace

import httplib2
import nbformat
import pytest
from google.oauth2.credentials import Credentials

import helpers
from helpers.errors import SettingError
from tests import once
from tests.emulator.conftest import start
from tests.test_train import notebook

ROOT = Path(__file__).parents[1]
spec = importlib.util.spec_from_file_location("google_check", ROOT / ".ci" / "google_check.py")
google_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(google_check)


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("cloud") / "state")
    yield running
    running.stop()


@pytest.fixture
def session(cloud, tmp_path, monkeypatch):
    """Google mode, on a project of its own; the report goes to the test's folder."""
    monkeypatch.setattr(google_check, "REPORT", tmp_path / "google-check.md")
    monkeypatch.setattr("helpers.cloud.client.RETRIES", 1)
    name = f"check-{uuid.uuid4().hex[:8]}"
    return helpers.connect(
        "google", project=name, bucket="", endpoint=cloud.url,
        credentials=Credentials(token=cloud.token),
    )  # fmt: skip


@pytest.fixture
def trained_already(session, trained, monkeypatch):
    """A job is there at once; what comes after it is the test's subject."""

    def train(session, *_, **__):
        base = f"gs://{session.bucket}/jobs/{uuid.uuid4().hex[:8]}"
        uri = once.stored(session, trained, base)
        return SimpleNamespace(base_uri=base, model_uri=uri, wait=lambda: None)

    monkeypatch.setattr(helpers, "train", train)


@pytest.fixture
def refuse(monkeypatch):
    """Refuses every call that fits a pattern: pattern -> how often."""
    patterns, request = {}, httplib2.Http.request

    def led(self, uri, method="GET", *arguments, **more):
        for pattern, left in patterns.items():
            if left and re.search(pattern, f"{method} {uri}"):
                patterns[pattern] -= 1
                about = {"status": 403, "content-type": "application/json"}
                said = "Refused for someone@example.com in " + uri
                return httplib2.Response(about), json.dumps({"error": {"message": said}}).encode()
        return request(self, uri, method, *arguments, **more)

    monkeypatch.setattr(httplib2.Http, "request", led)
    return patterns


def left(session) -> list[str]:
    """What of the check is in the project, asked without the check's own code."""
    found = []
    for kind in ("endpoints", "models", "customJobs", "batchPredictionJobs"):
        collection = session.collection(kind)
        found += session.list(collection, kind, parent=session.parent)
    names = [item["name"] for item in found]
    bucket = session.service("storage").buckets().get(bucket=session.bucket)
    if session.call(bucket, unless=404):
        uris = helpers.storage.list_uris(session, f"gs://{session.bucket}/")
        made = re.compile(f"gs://{session.bucket}/(images|setup)/")  # by setup, and kept
        names += [uri for uri in uris if not made.match(uri)]
    return names


def assert_nameless(session) -> str:
    report = google_check.REPORT.read_text()
    for secret in (
        session.project,
        session.credentials.token,
        session.endpoint,
        "@",
        "google-check-",
    ):
        assert secret not in report, secret
    return report


@pytest.mark.long
def test_the_road_holds_and_nothing_is_left(session, capsys):
    assert google_check.run(session), google_check.REPORT.read_text()
    report = assert_nameless(session)
    steps = re.findall(r"(?m)^\| ([^|]+) \| \d+ \| held \|$", report)
    assert steps == [
        "setup", "train", "register", "deploy, with scale to zero", "predict", "batch_predict",
        "costs", "clean up", "nothing is left",
    ]  # fmt: skip
    assert left(session) == []
    said = capsys.readouterr().out
    assert said.index("At worst this costs 0.60 USD, at most 30 minutes") < said.index("--- setup")


STEPS = {
    "setup": "POST .*/builds",
    "register": "POST .*models:upload",
    "deploy, with scale to zero": "POST .*:deployModel",
    "predict": "POST .*:rawPredict|POST .*:predict",
    "batch_predict": "POST .*/batchPredictionJobs",
    "costs": "GET .*/hyperparameterTuningJobs",
}


@pytest.mark.parametrize("step", STEPS)
def test_a_step_that_fails_leaves_nothing(session, refuse, trained_already, step):
    refuse[STEPS[step]] = 99
    assert not google_check.run(session)
    report = assert_nameless(session)
    assert re.search(rf"(?m)^\| {re.escape(step)} \| \d+ \| (Cloud|Setting)Error: ", report), report
    assert "| nothing is left | " in report
    if step != "costs":  # the list of what remains asks the same
        assert re.search(r"(?m)^\| nothing is left \| \d+ \| held \|$", report)
    assert left(session) == []


def test_what_can_t_be_removed_is_said_and_the_rest_is_removed(session, refuse, trained_already):
    refuse["DELETE .*/endpoints/"] = 99
    assert not google_check.run(session)
    report = assert_nameless(session)
    assert re.search(r"\| clean up \| \d+ \| HelpersError: .*Refused for ACCOUNT", report)
    assert re.search(r"\| nothing is left \| \d+ \| HelpersError: Still there: endpoints", report)
    assert [name.split("/")[-2] for name in left(session)] == ["endpoints"]
    refuse.clear()
    helpers.cleanup(session)
    assert left(session) == []


@pytest.mark.long
def test_half_an_hour_ends_a_job_that_does_not(session, tmp_path, monkeypatch):
    path = notebook(tmp_path, "slow.ipynb", "import time\ntime.sleep(300)")
    made = nbformat.read(path, as_version=4)
    made.cells[0].source = 'DATA = ""\nTARGET = ""\nEPOCHS = 1'
    nbformat.write(made, path)
    monkeypatch.setattr(google_check, "NOTEBOOK", str(path))
    helpers.setup(session, apply=True)
    assert not google_check.run(session, road_s=12, clean_s=120)
    assert "Stopped: the time is up" in assert_nameless(session)
    assert left(session) == []


@pytest.mark.parametrize("arguments", [[], ["PROJECT="], ["PROJCT=x"], ["project"]])
def test_it_starts_for_a_named_project_only(arguments):
    with pytest.raises(SettingError):
        google_check.read_arguments(arguments)
