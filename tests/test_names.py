"""Names that meet only in an id: nothing of others is touched, whoever made it and however it ends.

Each call is made through the public names against a local cloud; what others have is made with
Google's API, and compared with itself afterwards.
"""

import dataclasses
import uuid

import httplib2
import pytest
from google.oauth2.credentials import Credentials
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import helpers
from helpers import storage
from helpers.cloud.names import resource_id
from helpers.errors import CloudError, NotFoundError, SettingError
from tests.emulator.conftest import start
from tests.test_train import SMALL, notebook

LETTERS = "abzAZ09_- .:é価"
CHANGES = (
    lambda name: name.replace("_", "-"),
    lambda name: name.replace("-", "_"),
    lambda name: name.replace("-", "--"),
    lambda name: name.replace(" ", "."),
    str.upper,
    str.title,
    lambda name: name.ljust(63, "x"),
    lambda name: f"{name.ljust(63, 'x')}y",
    lambda name: f"m-{name}",
    lambda name: f"{name}-",
    lambda name: f"-{name}",
    lambda name: f'{name}" OR displayName="',
    lambda name: f"{name}\\",
)
MORE = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@st.composite
def pairs(draw) -> tuple[str, str]:
    """Two display names; as ids without a mark of their own, most of them would be one."""
    name = draw(st.text(LETTERS, min_size=1, max_size=70))
    changes = draw(st.lists(st.sampled_from(CHANGES), min_size=1, max_size=3))
    other = name
    for change in changes:
        other = change(other)
    assume(name != other)
    return name[:120], other[:120]


def old_id(name: str) -> str:
    """The id of a display name before ids carried a mark of it."""
    text = "".join(c if c in "abcdefghijklmnopqrstuvwxyz0123456789-" else "-" for c in name.lower())
    return (text if text[:1].isalpha() else f"m-{text}")[:63].strip("-")


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    running = start(tmp_path_factory.mktemp("cloud") / "state")
    yield running
    running.stop()


@pytest.fixture
def session(cloud):
    """A project of its own, with a bucket, in google mode."""
    return other_project(cloud, f"names-{uuid.uuid4().hex[:8]}")


def other_project(cloud, name: str, bucket: str = ""):
    session = helpers.connect(
        "google", project=name, bucket=bucket or f"{name}-bucket", endpoint=cloud.url,
        credentials=Credentials(token=cloud.token),
    )  # fmt: skip
    if not bucket:
        buckets = session.service("storage").buckets()
        body = {"name": session.bucket, "location": "us-central1"}
        session.call(buckets.insert(project=name, body=body))
    return session


def artifact(session) -> str:
    uri = f"gs://{session.bucket}/jobs/{uuid.uuid4().hex[:8]}/model/"
    storage.write_bytes(session, b"not a model", f"{uri}1/saved_model.pb")
    return uri


def made_endpoint(session, name: str, endpoint_id: str) -> dict:
    """An endpoint that somebody else made; one that is there by that id stays theirs."""
    endpoints = session.collection("endpoints")
    body = {"displayName": name, "labels": {"team": "other"}}
    made = endpoints.create(parent=session.parent, endpointId=endpoint_id, body=body)
    return session.wait(session.call(made))


def all_of(session, kind: str) -> dict[str, dict]:
    found = session.list(session.collection(kind), kind, parent=session.parent)
    return {item["name"]: item for item in found}


def unserved(session) -> "helpers.registry.Model":
    """A version that is gone by the time it is to serve."""
    model = helpers.register(session, artifact(session), name="unserved")
    gone = model.resource_name.replace("/models/", "/models/gone-")
    return dataclasses.replace(model, resource_name=gone)


# --- Ids


@given(pairs())
def test_unlike_names_have_unlike_ids(pair):
    first, second = map(resource_id, pair)
    assert first != second
    for made in (first, second):
        assert len(made) <= 63
        assert made[0].isalpha()
        assert made[-1].isalnum()
        assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@MORE
@given(pairs())
def test_a_failed_deployment_leaves_the_endpoints_of_others(session, pair):
    theirs, ours = pair
    model = unserved(session)
    made_endpoint(session, theirs, f"{old_id(theirs) or 'm'}"[:40] + f"-{uuid.uuid4().hex[:8]}")
    before = all_of(session, "endpoints")
    for always_on in (True, False):
        with pytest.raises(CloudError, match="does not exist"):
            helpers.deploy(session, model, name=ours, always_on=always_on)
        assert all_of(session, "endpoints") == before
    with pytest.raises(CloudError, match="does not exist"):  # theirs by name: asked for, and kept
        helpers.deploy(session, model, name=theirs)
    assert all_of(session, "endpoints") == before
    with pytest.raises(NotFoundError):
        helpers.find_endpoint(session, ours)
    assert helpers.find_endpoint(session, theirs).name == theirs
    helpers.cleanup(session, name=theirs)  # no label of this package
    assert all_of(session, "endpoints") == before


@MORE
@given(pairs())
def test_models_whose_names_meet_in_an_id_stay_apart(session, pair):
    theirs, ours = pair
    versions = session.collection("models").listVersions
    first = helpers.register(session, artifact(session), name=theirs)
    theirs_before = session.call(versions(name=first.resource_name.split("@")[0]))
    second = helpers.register(session, artifact(session), name=ours)
    again = helpers.register(session, artifact(session), name=ours)
    assert (int(again.version), again.name) == (int(second.version) + 1, ours)
    assert session.call(versions(name=first.resource_name.split("@")[0])) == theirs_before
    assert helpers.find_model(session, theirs).resource_name == first.resource_name
    assert helpers.find_model(session, ours).resource_name == again.resource_name


def test_what_has_its_id_from_before_is_found_by_its_name(session):
    made = made_endpoint(session, "price_a", "price-a")
    assert helpers.find_endpoint(session, "price_a").resource_name == made["name"]
    container = {
        "containerSpec": {"imageUri": "us-docker.pkg.dev/p/r/i:1"},
        "artifactUri": artifact(session),
    }
    body = {"modelId": "price-a", "model": {"displayName": "price_a"} | container}
    session.wait(
        session.call(session.collection("models").upload(parent=session.parent, body=body))
    )
    assert helpers.register(session, artifact(session), name="price_a").version == "2"
    assert helpers.register(session, artifact(session), name="price-a").version == "1"


def test_an_endpoint_that_has_our_id_but_another_name_is_not_taken(session):
    made_endpoint(session, "a stranger's", resource_id("prices"))
    before = all_of(session, "endpoints")
    with pytest.raises(CloudError, match='is "a stranger\'s" and not "prices"'):
        helpers.deploy(session, unserved(session), name="prices", always_on=True)
    assert all_of(session, "endpoints") == before


# --- Two at once


@pytest.fixture
def on_request(monkeypatch):
    """What happens at the first request that has a text in its address: text -> function, which
    gives an answer, or None to let the request through; `lost` drops the answer of one."""
    plans, request = {}, httplib2.Http.request

    def led(self, uri, method="GET", *arguments, **more):
        found = next((text for text in plans if text in f"{method} {uri}"), None)
        if found is None:
            return request(self, uri, method, *arguments, **more)
        plan = plans.pop(found)
        if plan == "lost":
            request(self, uri, method, *arguments, **more)
            raise ConnectionResetError("lost")
        return plan() or request(self, uri, method, *arguments, **more)

    monkeypatch.setattr(httplib2.Http, "request", led)
    return plans


def refusal() -> tuple:
    about = {"status": 400, "content-type": "application/json"}
    return httplib2.Response(about), b'{"error": {"code": 400, "message": "not this one"}}'


def test_who_made_the_endpoint_does_not_remove_what_another_put_on_it(session, on_request, trained):
    uri = storage.upload_folder(session, trained / "model", f"gs://{session.bucket}/made/model")
    good = helpers.register(session, uri, name="good")
    served = []

    def meanwhile():
        served.append(helpers.deploy(session, good, name="both"))
        return refusal()

    on_request[":deployModel"] = meanwhile
    with pytest.raises(CloudError, match="not this one"):
        helpers.deploy(session, unserved(session), name="both")
    assert helpers.find_endpoint(session, "both").traffic == {"1": 100}
    helpers.cleanup(session, name="both")


def test_an_endpoint_that_its_maker_removes_meanwhile_is_made_anew(session, on_request, trained):
    uri = storage.upload_folder(session, trained / "model", f"gs://{session.bucket}/made/model")
    good = helpers.register(session, uri, name="good")
    theirs = made_endpoint(session, "both", resource_id("both"))
    on_request[":deployModel"] = lambda: (
        session.wait(session.call(session.collection("endpoints").delete(name=theirs["name"])))
        and None
    )
    assert helpers.deploy(session, good, name="both").traffic == {"1": 100}
    helpers.cleanup(session, name="both")


def test_an_endpoint_whose_answer_was_lost_is_this_call_s_own(session, on_request):
    model = unserved(session)
    on_request["POST http" + session.endpoint.removeprefix("http")] = "lost"
    with pytest.raises(CloudError, match="does not exist"):
        helpers.deploy(session, model, name="lost")
    assert all_of(session, "endpoints") == {}


def test_a_model_that_another_notebook_made_first_gets_one_version_more(session, on_request):
    first, second = artifact(session), artifact(session)
    helpers.register(session, artifact(session), name="image is built")
    made = []
    on_request["models:upload"] = lambda: made.append(helpers.register(session, first, name="both"))
    model = helpers.register(session, second, name="both")
    assert [made[0].artifact_uri, model.artifact_uri] == [first, second]
    assert [made[0].version, model.version] == ["1", "2"]
    assert len(all_of(session, "models")) == 2


# --- Buckets, repositories, accounts, jobs


def test_a_bucket_of_another_project_is_refused_and_stays(cloud, session, tmp_path):
    other = other_project(cloud, f"names-{uuid.uuid4().hex[:8]}", bucket=session.bucket)
    storage.write_bytes(session, b"theirs", f"gs://{session.bucket}/jobs/theirs")
    buckets = session.service("storage").buckets()
    before = session.call(buckets.get(bucket=session.bucket))
    for call in (
        lambda: helpers.setup(other, apply=True),
        lambda: helpers.train(other, str(notebook(tmp_path, "small.ipynb", SMALL))),
        lambda: helpers.cleanup(other, objects=True),
    ):
        with pytest.raises(SettingError, match="belongs to another project"):
            call()
    assert session.call(buckets.get(bucket=session.bucket)) == before
    assert storage.list_uris(session, f"gs://{session.bucket}/") == [
        f"gs://{session.bucket}/jobs/theirs"
    ]


def test_a_repository_of_somebody_else_gets_no_image(session):
    collection = session.service("artifactregistry").projects().locations().repositories()
    made = collection.create(
        parent=session.parent, repositoryId="colab-to-cloud", body={"format": "DOCKER"}
    )
    session.wait(session.call(made), api="artifactregistry")
    with pytest.raises(SettingError, match="made by somebody else, and images"):
        helpers.register(session, artifact(session), name="prices")
    with pytest.raises(SettingError, match="--update-labels=made-by=colab-to-cloud"):
        helpers.setup(session, apply=True)
    packages = collection.packages().list(parent=f"{session.parent}/repositories/colab-to-cloud")
    assert session.call(packages).get("packages", []) == []


def test_an_account_of_somebody_else_runs_no_job(session, tmp_path):
    accounts = session.service("iam").projects().serviceAccounts()
    body = {"accountId": "notebook-jobs", "serviceAccount": {"displayName": "may do anything"}}
    session.call(accounts.create(name=f"projects/{session.project}", body=body))
    with pytest.raises(SettingError, match=r"made by somebody else \(\"may do anything\"\)"):
        helpers.train(session, str(notebook(tmp_path, "small.ipynb", SMALL)))
    with pytest.raises(SettingError, match="made by somebody else"):
        helpers.setup(session, apply=True)
    projects = session.service("cloudresourcemanager").projects()
    policy = session.call(projects.getIamPolicy(resource=f"projects/{session.project}", body={}))
    assert policy.get("bindings", []) == []
    assert all_of(session, "customJobs") == {}


def test_a_job_whose_answer_was_lost_is_found_by_its_whole_name(session, on_request, tmp_path):
    name = 'twice" OR displayName="x.ipynb'
    on_request["POST " + f"{session.endpoint}/v1/{session.parent}/customJobs"] = "lost"
    job = helpers.train(session, str(notebook(tmp_path, name, SMALL)), wait=False)
    assert list(all_of(session, "customJobs")) == [job.name]
    job.cancel()
