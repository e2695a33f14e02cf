"""What takes long on Google, against a clock that is set forward: what a person reads meanwhile."""

import datetime
import json
import re
import time
import uuid

import httplib2
import pytest
from google.auth.credentials import Credentials
from google.auth.exceptions import RefreshError

import helpers
from helpers import storage
from helpers.cloud import grants
from helpers.cloud.client import Session
from helpers.errors import CloudError, NotFoundError
from helpers.training import Job

OPERATION = "projects/p/locations/us-central1/endpoints/e/operations/7"


class Clock:
    """Hours that pass in no time: a pause sets it forward."""

    def __init__(self, monkeypatch):
        self.start_s, self.passed_s = time.time(), 0.0
        for name, offset in (("time", self.start_s), ("monotonic", time.monotonic())):
            monkeypatch.setattr(time, name, lambda offset=offset: offset + self.passed_s)
        monkeypatch.setattr(time, "sleep", self.pass_by)
        monkeypatch.setattr("google.auth._helpers.utcnow", self.utc)

    def pass_by(self, seconds: float) -> None:
        self.passed_s += seconds

    def utc(self) -> datetime.datetime:
        at = datetime.datetime.fromtimestamp(self.start_s + self.passed_s, datetime.UTC)
        return at.replace(tzinfo=None)


class SignIn(Credentials):
    """Tokens that hold for an hour; after `ends_s` nobody may have another."""

    def __init__(self, clock: Clock, ends_s: float):
        super().__init__()
        self.clock, self.ends_s, self.tokens = clock, ends_s, 0

    def refresh(self, request) -> None:
        if self.clock.passed_s > self.ends_s:
            raise RefreshError("invalid_grant: Token has been expired or revoked.")
        self.tokens += 1
        self.token = f"token-{self.tokens}"
        self.expiry = self.clock.utc() + datetime.timedelta(hours=1)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


@pytest.fixture
def google(clock, monkeypatch):
    """A session of someone whose sign-in lasts, and the answers by pattern: a function of the
    call's headers that gives (status, JSON). What no pattern fits was not expected."""
    said = {}

    def request(self, uri, method="GET", body=None, headers=None, **more):
        for pattern, answer in said.items():
            if re.search(pattern, f"{method} {uri}"):
                status, content = answer(headers)
                about = {"status": status, "content-type": "application/json"}
                return httplib2.Response(about), json.dumps(content).encode()
        raise AssertionError(f"{method} {uri}")

    monkeypatch.setattr(httplib2.Http, "request", request)
    session = Session("google", "p", "us-central1", "b", "", SignIn(clock, float("inf")))
    return session, said


def takes(clock: Clock, seconds: float, end: dict):
    """The answers of an operation that ends so late, as Google gives them."""
    return lambda headers: (
        200, {"name": OPERATION, "done": clock.passed_s >= seconds}
        | (end if clock.passed_s >= seconds else {}),
    )  # fmt: skip


def test_an_operation_takes_an_hour(google, clock, capsys):
    session, said = google
    said["operations/7"] = takes(clock, 3600, {"response": {"deployedModel": {"id": "1"}}})
    assert session.wait({"name": OPERATION}) == {"deployedModel": {"id": "1"}}
    assert 3600 <= clock.passed_s < 3606
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"Still waiting after {minutes} minutes" for minutes in range(10, 70, 10)
    ]
    assert all(OPERATION in line and "goes on without this notebook" in line for line in lines)


def test_what_is_done_in_minutes_says_nothing_of_waiting(google, clock, capsys):
    session, said = google
    said["operations/7"] = takes(clock, 540, {"response": {}})
    session.wait({"name": OPERATION})
    assert capsys.readouterr().out == ""


def test_a_model_server_that_is_not_ready_after_an_hour(google, clock):
    """The service's own words, and no second attempt."""
    session, said = google
    words = "Model server never became ready. Please validate that your model file is valid."
    said["operations/7"] = takes(clock, 3600, {"error": {"code": 9, "message": words}})
    with pytest.raises(CloudError, match="never became ready") as caught:
        session.wait({"name": OPERATION})
    assert caught.value.status == 400
    assert clock.passed_s < 3606


def test_tokens_are_renewed_in_a_long_wait(google, clock):
    """Each hour another one, without a word; the wait does not notice."""
    session, said = google
    seen = []

    def answer(headers):
        seen.append(headers["authorization"])
        return takes(clock, 3 * 3600, {"response": {}})(headers)

    said["operations/7"] = answer
    session.wait({"name": OPERATION})
    assert list(dict.fromkeys(seen)) == [f"Bearer token-{n}" for n in range(1, 5)]


def test_a_sign_in_that_ends_in_a_long_wait_says_what_goes_on(google, clock):
    session, said = google
    session.credentials.ends_s = 5000
    said["operations/7"] = takes(clock, 3 * 3600, {"response": {}})
    with pytest.raises(CloudError, match="Token has been expired or revoked") as caught:
        session.wait({"name": OPERATION})
    assert "What was under way goes on: run this cell again" in str(caught.value)
    assert caught.value.status == 401
    assert 5000 < clock.passed_s < 7300  # when the second token had ended


@pytest.fixture
def given(clock, monkeypatch):
    """Setup has given roles now, which it keeps in the bucket."""
    kept = json.dumps({"time": time.time()}).encode()
    monkeypatch.setattr("helpers.cloud.grants.storage.read_bytes", lambda session, uri: kept)


def test_roles_that_never_hold_are_waited_for_so_long_and_no_longer(google, clock, given, capsys):
    """The first submit after setup: a line says that it waits, and the end names the role."""
    session, said = google
    denied = "Permission 'iam.serviceAccounts.actAs' denied on service account notebook-jobs."
    said["POST .*/customJobs"] = lambda headers: (403, {"error": {"message": denied}})
    jobs = session.collection("customJobs")
    request = jobs.create(parent=session.parent, body={"displayName": "j"})
    with pytest.raises(CloudError, match="roles/iam.serviceAccountUser") as caught:
        session.create(request, lambda: None, patience=grants.patience(session))
    assert caught.value.status == 403
    assert grants.HOLD_S < clock.passed_s < grants.HOLD_S + 7
    assert capsys.readouterr().out.count("Google takes up to 7 minutes. Trying again") == 1


def test_roles_hold_after_minutes(google, clock, given, capsys):
    session, said = google
    denied = {"error": {"message": "Permission 'iam.serviceAccounts.actAs' denied"}}
    said["POST .*/customJobs"] = lambda headers: (
        (403, denied) if clock.passed_s < 300 else (200, {"name": "j"})
    )
    request = session.collection("customJobs").create(parent=session.parent, body={})
    made = session.create(request, lambda: None, patience=grants.patience(session))
    assert made == {"name": "j"}
    assert 300 <= clock.passed_s < 307
    assert capsys.readouterr().out.count("do not hold yet") == 1


@pytest.mark.parametrize(
    ("seconds", "said"), [(59, "00:59"), (3599, "59:59"), (3600, "1:00:00"), (90_061, "25:01:01")]
)
def test_a_job_of_hours_tells_its_hours(google, clock, capsys, seconds, said):
    session, answers = google
    times = {"startTime": "2026-11-28T00:00:00Z"}
    end = datetime.datetime(2026, 11, 28, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)
    job = {"name": "projects/p/locations/us-central1/customJobs/7", "state": "JOB_STATE_SUCCEEDED",
           "displayName": "j", "createTime": times["startTime"],
           "endTime": end.isoformat().replace("+00:00", "Z")} | times  # fmt: skip
    answers["customJobs/7"] = lambda headers: (200, job)
    shown = list(Job(session, job["name"], "j", "gs://b/j").follow())
    assert shown == [job]
    assert f"SUCCEEDED {said}\n" in capsys.readouterr().out


def test_an_endpoint_that_does_not_come_up_is_told_and_leaves_nothing(
    session, clock, monkeypatch, capsys
):
    """Through the whole of deploy, on the local cloud, whose answer arrives half an hour late."""
    name, request = f"late-{uuid.uuid4().hex[:6]}", httplib2.Http.request
    storage.write_bytes(session, b"not a model", f"gs://{session.bucket}/{name}/1/saved_model.pb")
    model = helpers.register(session, f"gs://{session.bucket}/{name}/", name=name)
    begun_s = clock.passed_s  # the waits until here were real, and set it forward

    def late(self, uri, method="GET", *arguments, **more):
        answer, content = request(self, uri, method, *arguments, **more)
        if "/operations/" in uri and "/endpoints/" in uri and clock.passed_s < begun_s + 1800:
            content = json.dumps({"name": json.loads(content)["name"], "done": False}).encode()
        return answer, content

    monkeypatch.setattr(httplib2.Http, "request", late)
    with pytest.raises(CloudError, match="Model server exited unexpectedly"):
        helpers.deploy(session, model)
    said = capsys.readouterr().out
    assert "Still waiting after 20 minutes" in said, said
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, name)
