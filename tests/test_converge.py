"""The whole road in google mode: interrupted anywhere, or on a failing cloud, it ends the same."""

import itertools
import random
import re
import threading
import time

import google_auth_httplib2
import numpy as np
import pandas as pd
import pytest
from google.oauth2.credentials import Credentials

import helpers
from helpers import storage
from helpers.errors import NotFoundError
from tests import once
from tests.emulator.conftest import start
from tests.test_train import SMALL, notebook

ROWS = pd.DataFrame({"size": [20.0, None], "kind": ["a", "b"]})
NAME = "prices"


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """Starts an empty local cloud, with faults if asked for; a session in google mode on it."""
    running, sleep = [], time.sleep
    monkeypatch.setattr("helpers.cloud.client.time.sleep", lambda seconds: sleep(min(seconds, 0.1)))

    def starter(faults: str = "{}"):
        running.append(start(tmp_path / "state", LOCAL_CLOUD_FAULTS=faults))
        return helpers.connect(
            "google", project="a-fresh-project", bucket="a-fresh-bucket", endpoint=running[0].url,
            credentials=Credentials(token=running[0].token),
        )  # fmt: skip

    yield starter
    running[0].stop()


def road(session, path, trained) -> None:
    """From nothing to a served model and back; safe to start again after any interruption."""
    helpers.setup(session, apply=True)
    try:
        job = helpers.find_job(session)
    except NotFoundError:
        job = helpers.train(session, str(path), wait=False)
    assert job.wait().state == "SUCCEEDED"
    versions = []
    for number in (1, 2):
        uri = once.stored(session, trained, f"gs://{session.bucket}/jobs/made-{number}")
        versions.append(helpers.register(session, uri, name=NAME))
    first, candidate = versions
    assert (first.version, candidate.version) == ("1", "2")
    helpers.deploy(session, first)
    endpoint = helpers.deploy(session, candidate, traffic_percent=10)
    assert sum(endpoint.traffic.values()) == 100
    assert set(endpoint.traffic) == {"1", "2"}
    running, compared = (helpers.batch_predict(session, model, ROWS) for model in versions)
    pd.testing.assert_frame_equal(running, compared)
    assert helpers.promote(session, candidate).traffic == {"1": 0, "2": 100}
    endpoint = helpers.roll_back(session, name=NAME)
    assert endpoint.traffic == {"1": 100, "2": 0}
    assert np.isfinite(helpers.predict(endpoint, ROWS)["price"]).all()


def removed(session) -> None:
    """Cleanup leaves nothing but what `setup` noted in the bucket."""
    helpers.cleanup(session, objects=True, images=True)
    assert set(helpers.costs(session)["what"]) <= {"bucket"}
    left = storage.list_uris(session, f"gs://{session.bucket}/")
    assert not [uri for uri in left if f"{session.bucket}/setup/" not in uri]
    api = session.service("aiplatform").projects().locations()
    for kind in ("endpoints", "models"):
        assert session.list(getattr(api, kind)(), kind, parent=session.parent) == []
    jobs = session.list(api.customJobs(), "customJobs", parent=session.parent)
    assert [job["state"] for job in jobs] == ["JOB_STATE_SUCCEEDED"]


class Interrupter:
    """Raises KeyboardInterrupt at a request: before it is sent, or after its effect, as when a
    kernel is stopped while the answer is on its way."""

    def __init__(self, monkeypatch):
        self.chosen, self.after, self.seen = lambda write: False, False, set()
        plain = google_auth_httplib2.AuthorizedHttp.request

        def request(http, uri, method="GET", *arguments, **named):
            kind = re.sub(r"[0-9a-f]{6,}|\d+", "N", uri)
            write = method != "GET" and (method, kind) not in self.seen
            now = threading.current_thread() is threading.main_thread() and self.chosen(write)
            if write:
                self.seen.add((method, kind))
            if now and not self.after:
                raise KeyboardInterrupt
            answer = plain(http, uri, method, *arguments, **named)
            if now:
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(google_auth_httplib2.AuthorizedHttp, "request", request)

    def stops(self, step, chosen, *, after: bool) -> bool:
        """Run a step; whether it was interrupted, once, where `chosen` said so."""
        done = []
        self.chosen = lambda write: not done and chosen(write) and not done.append(True)
        self.after = after
        try:
            step()
        except KeyboardInterrupt:
            return True
        finally:
            self.chosen = lambda write: False
        return False


@pytest.mark.long
@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.soak) for n in (2, 3))])
def test_interrupted_anywhere_it_converges(cloud, monkeypatch, trained, tmp_path, seed):
    """Each attempt is stopped at a request drawn by the seed; the next starts from the top."""
    draw, session = random.Random(seed), cloud()
    path = notebook(tmp_path, "small.ipynb", SMALL)
    interrupter = Interrupter(monkeypatch)
    for step, most in ((lambda: road(session, path, trained), 120), (lambda: removed(session), 30)):
        stopped = 0
        for _ in range(4):
            count = itertools.count(draw.randint(0, most) * -1)
            stopped += interrupter.stops(
                step, lambda write, count=count: next(count) == 0, after=draw.random() < 0.5
            )
        assert stopped
        step()


@pytest.mark.soak
@pytest.mark.parametrize("after", [False, True])
def test_interrupted_at_every_write_it_converges(cloud, monkeypatch, trained, tmp_path, after):
    """At each kind of write, the first time that it is sent."""
    session, path = cloud(), notebook(tmp_path, "small.ipynb", SMALL)
    interrupter = Interrupter(monkeypatch)
    for step, least in ((lambda: road(session, path, trained), 25), (lambda: removed(session), 4)):
        stopped = 0
        while interrupter.stops(step, lambda write: write, after=after):
            stopped += 1
        assert stopped >= least


@pytest.mark.parametrize(
    ("share", "seed"),
    [(0.02, 1), *((0.08, n) for n in range(2, 6))],
)
@pytest.mark.soak
def test_on_a_failing_cloud_it_ends_the_same(cloud, trained, tmp_path, share, seed):
    session = cloud(f"{share}:{seed}")
    road(session, notebook(tmp_path, "small.ipynb", SMALL), trained)
    removed(session)
