"""The whole road on a local cloud that fails on purpose: it ends right, nothing is made twice."""

import hashlib
import random
import time
import uuid

import numpy as np
import pandas as pd
import pytest

import helpers
from helpers import storage
from helpers.errors import CloudError, NotFoundError
from tests import once
from tests.emulator.conftest import start
from tests.test_train import SMALL, notebook

ROWS = 100_000


@pytest.fixture
def faulty(tmp_path, monkeypatch):
    """Starts a local cloud with faults, for every later `helpers.connect`; pauses are short."""
    running, sleep = [], time.sleep
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "state"))
    monkeypatch.setattr(
        "helpers.cloud.client.time.sleep", lambda seconds: sleep(min(seconds, 0.05))
    )

    def starter(faults: str):
        running.append(start(tmp_path / "state", LOCAL_CLOUD_FAULTS=faults))
        return running[-1]

    yield starter
    for cloud in running:
        cloud.stop()


def test_off_unless_asked_for(session):
    """The same calls that others meet faults on."""
    for _ in range(50):
        session.call(session.service("storage").buckets().list(project="local"))


@pytest.mark.parametrize(
    ("kind", "said"),
    [("429", "answered 429"), ("500", "answered 500"), ("503", "answered 503"),
     ("dropped", "no answer"), ("lost", "no answer"), ("truncated", "no answer")],
)  # fmt: skip
def test_a_fault_that_does_not_pass_is_told(faulty, monkeypatch, kind, said):
    monkeypatch.setattr("helpers.cloud.client.RETRIES", 2)
    running = faulty(f'{{"storage.objects.*": {{"{kind}": 1}}, "storage.buckets.*": {{}}}}')
    session = helpers.connect("local")
    with pytest.raises(CloudError, match=said):
        storage.write_bytes(session, b"content", "gs://local-bucket/x")
    there = (running.folder / "buckets" / "local-bucket" / "x").exists()
    assert there == (kind in ("lost", "truncated"))


@pytest.mark.soak  # its short form is that of tests/test_converge.py
@pytest.mark.parametrize("seed", range(5))
def test_the_road_ends_right(faulty, tmp_path, trained, seed):
    running = faulty(f"0.1:{seed}")
    session, name = helpers.connect("local"), f"faulty-{uuid.uuid4().hex[:6]}"

    large = tmp_path / "large.bin"
    large.write_bytes(random.Random(seed).randbytes(20 * 2**20))
    uri = storage.upload_file(session, large, f"gs://{session.bucket}/large.bin")
    back = storage.download_file(session, uri, tmp_path / "back.bin")
    assert digest(back) == digest(large)

    job = helpers.train(session, str(notebook(tmp_path, "small.ipynb", SMALL)))
    assert job.metrics == {"epochs": 3}
    jobs = session.service("aiplatform").projects().locations().customJobs()
    assert len(session.list(jobs, "customJobs", parent=session.parent)) == 1

    versions = []
    for number in (1, 2):
        base = f"gs://{session.bucket}/trained/{number}"
        uri = once.stored(session, trained, base, "numbers")
        versions.append(helpers.register(session, uri, name=name))
        helpers.deploy(session, versions[-1])
    assert [model.version for model in versions] == ["1", "2"]
    models = session.service("aiplatform").projects().locations().models()
    assert len(session.list(models, "models", parent=session.parent)) == 1
    full_name = versions[0].resource_name.split("@")[0]
    assert len(session.call(models.listVersions(name=full_name))["models"]) == 2

    draw = np.random.default_rng(seed)
    frame = pd.DataFrame(draw.uniform(0, 50, (ROWS, 2)), columns=["size", "two"])
    frame["two"] = frame["two"] > 25
    endpoint = helpers.find_endpoint(session, name)
    scores = helpers.predict(endpoint, frame.astype(float))
    assert list(scores.index) == list(frame.index)
    some = draw.choice(ROWS, 200, replace=False)
    alone = helpers.predict(endpoint, frame.astype(float).iloc[some])
    pd.testing.assert_frame_equal(scores.iloc[some], alone, rtol=1e-4)
    assert helpers.promote(session, versions[0]).traffic == {"1": 100, "2": 0}

    endpoints = session.service("aiplatform").projects().locations().endpoints()
    assert len(session.list(endpoints, "endpoints", parent=session.parent)) == 1
    broken = f"gs://{session.bucket}/broken/model/"
    storage.write_bytes(session, b"not a model", f"{broken}1/saved_model.pb")
    storage.write_bytes(session, b"{}", f"{broken}1/assets.extra/instance.yaml")
    with pytest.raises(CloudError, match="Model server"):
        helpers.deploy(session, helpers.register(session, broken, name="broken"))
    assert len(session.list(endpoints, "endpoints", parent=session.parent)) == 1

    helpers.cleanup(session, name=name)
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, name)
    assert not [line for line in running.commands() if "model_server" in line]


def digest(path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
