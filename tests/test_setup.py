"""A Google project prepared from nothing, in google mode: looked at, made, looked at again."""

import contextlib
import json
import re
import time
from pathlib import Path

import httplib2
import pytest
from google.oauth2.credentials import Credentials

import helpers
from helpers import storage
from helpers import tensorflow_cloud as tfc
from helpers.cloud import accounts, grants, images
from helpers.errors import CloudError, SettingError
from helpers.project import assumptions
from tests.emulator.conftest import start
from tests.test_train import SMALL, notebook
from tests.test_waits import Clock

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def cloud(tmp_path_factory):
    """A local cloud of these tests alone; each takes a project of its own."""
    running = start(tmp_path_factory.mktemp("cloud") / "state")
    yield running
    running.stop()


def google(cloud, project: str, **arguments):
    """A session in google mode whose every call goes to this local cloud."""
    return helpers.connect(
        "google", project=project, bucket=f"{project}-bucket", endpoint=cloud.url,
        credentials=Credentials(token=cloud.token), **arguments,
    )  # fmt: skip


def states(plan) -> dict[str, set]:
    return {step: set(rows["state"]) for step, rows in plan.groupby("step")}


def test_a_dry_run_makes_nothing(cloud):
    session = google(cloud, "dry-project")
    plan = helpers.setup(session)
    assert states(plan) == {
        "services": {"missing"}, "billing": {"there"}, "bucket": {"missing"},
        "account": {"missing"}, "repository": {"missing"}, "roles": {"missing"},
        "image": {"missing"}, "sign-in": {"there"}, "project": {"there"}, "quota": {"there"},
        "you": {"there"},
    }  # fmt: skip
    assert (plan["cost"] != "").all()
    assert plan.equals(helpers.setup(session))
    assert accounts.find(session, accounts.RUN_AS) == ""


def test_apply_makes_a_project_that_trains_and_a_second_time_changes_nothing(
    cloud, capsys, tmp_path
):
    session = google(cloud, "made-project")
    plan = helpers.setup(session, apply=True)
    assert set(plan["state"]) == {"made", "there"}
    assert "is ready" in capsys.readouterr().out
    again = helpers.setup(session, apply=True)
    assert set(again["state"]) == {"there"}

    bucket = session.call(session.service("storage").buckets().get(bucket=session.bucket))
    assert bucket["iamConfiguration"]["publicAccessPrevention"] == "enforced"
    assert bucket["iamConfiguration"]["uniformBucketLevelAccess"]["enabled"]
    assert [rule["condition"] for rule in bucket["lifecycle"]["rule"]] == [
        {"age": 30, "matchesPrefix": ["images/"]}
    ]
    projects = session.service("cloudresourcemanager").projects()
    policy = session.call(projects.getIamPolicy(resource="projects/made-project", body={}))
    assert {binding["role"] for binding in policy["bindings"]} == {"roles/logging.logWriter"}
    policy = session.call(session.service("storage").buckets().getIamPolicy(bucket=session.bucket))
    holders = {b["role"]: b["members"] for b in policy["bindings"]}
    run_as = "serviceAccount:notebook-jobs@made-project.iam.gserviceaccount.com"
    assert holders["roles/storage.objectUser"] == [run_as]
    assert "editor" not in json.dumps(holders)
    image = images.environment_image(session)
    assert image.startswith("us-central1-docker.pkg.dev/made-project/colab-to-cloud/environment:")
    builds = session.service("cloudbuild").projects().locations().builds()
    accounts_of_builds = {
        build["serviceAccount"]
        for build in session.call(builds.list(parent=session.parent))["builds"]
    }
    assert accounts_of_builds == {accounts.name(session, accounts.BUILD_AS)}
    (tmp_path / "train.py").write_text("print('trained')")
    answer = tfc.run(str(tmp_path / "train.py"), distribution_strategy=None)
    job = helpers.find_job(session, answer["job_id"])
    account = accounts.email(session, accounts.RUN_AS)
    assert job.resource()["jobSpec"]["serviceAccount"] == account
    assert job.wait().state == "SUCCEEDED"


def test_bindings_and_rules_of_others_stay(cloud):
    session = google(cloud, "shared-project")
    projects = session.service("cloudresourcemanager").projects()
    buckets = session.service("storage").buckets()
    theirs = {
        "role": "roles/logging.logWriter", "members": ["user:a@example.com"],
        "condition": {"expression": "true", "title": "theirs"},
    }  # fmt: skip
    project = "projects/shared-project"
    session.call(
        projects.setIamPolicy(
            resource=project, body={"policy": {"version": 3, "bindings": [theirs]}}
        )
    )
    rule = {"action": {"type": "Delete"}, "condition": {"age": 365}}
    body = {"name": session.bucket, "location": "us-central1", "lifecycle": {"rule": [rule]}}
    session.call(buckets.insert(project="shared-project", body=body))
    helpers.setup(session, apply=True)
    policy = session.call(projects.getIamPolicy(resource=project, body={}))
    assert theirs in policy["bindings"]
    assert policy["version"] == 3
    bucket = session.call(buckets.get(bucket=session.bucket))
    assert rule in bucket["lifecycle"]["rule"]
    assert len(bucket["lifecycle"]["rule"]) == 2


def test_a_bucket_in_another_region_is_refused_before_anything_that_bills(cloud):
    session = google(cloud, "far-project")
    body = {"name": session.bucket, "location": "europe-west4"}
    session.call(session.service("storage").buckets().insert(project="far-project", body=body))
    with pytest.raises(SettingError, match="is in europe-west4, the jobs would run in us-central1"):
        helpers.setup(session, apply=True)
    assert accounts.find(session, accounts.RUN_AS) == ""


def test_without_billing_nothing_else_is_made(cloud, capsys):
    session = google(cloud, "poor-project")
    projects = session.service("cloudbilling").projects()
    session.call(
        projects.updateBillingInfo(name="projects/poor-project", body={"billingAccountName": ""})
    )
    plan = helpers.setup(session, apply=True)
    assert states(plan)["bucket"] == {"missing"}
    said = capsys.readouterr().out
    assert "not ready yet" in said
    assert "Link a billing account" in said


def test_a_budget_is_made_once_when_it_is_asked_for(cloud):
    session = google(cloud, "thrifty-project")
    assert "budget" not in set(helpers.setup(session)["step"])
    assert states(helpers.setup(session, apply=True, monthly_budget=20))["budget"] == {"made"}
    assert states(helpers.setup(session, apply=True, monthly_budget=20))["budget"] == {"there"}


@pytest.fixture
def answers(monkeypatch):
    """Answers of Google's that the local cloud can't bring about: part of an address -> answer."""
    said, request = {}, httplib2.Http.request

    def led(self, uri, method="GET", body=None, headers=None, **more):
        for part, (status, answer) in said.items():
            if part in uri:
                about = {"status": status, "content-type": "application/json"}
                return httplib2.Response(about), json.dumps(answer).encode()
        return request(self, uri, method, body, headers, **more)

    monkeypatch.setattr(httplib2.Http, "request", led)
    return said


def quota(*buckets: dict) -> tuple[int, dict]:
    return 200, {"consumerQuotaLimits": [{"quotaBuckets": list(buckets)}]}


HERE, FAR = {"region": "us-central1"}, {"region": "europe-west4"}
ANY = {"effectiveLimit": "42"}


@pytest.mark.parametrize(
    ("machine_type", "name", "answer", "state", "todo"),
    [
        ("n1-standard-4", "cpus", quota(ANY, {"dimensions": FAR}), "there", ""),
        ("n1-standard-4", "cpus", quota(ANY, {"dimensions": HERE}), "missing", "At most 0 of 4"),
        ("n1-standard-64", "cpus", quota(ANY), "missing", "At most 42 of 64"),
        ("n2-highmem-16", "n2_cpus", quota({"effectiveLimit": "-1"}), "there", ""),
        ("a2-highgpu-1g", "a2_cpus", quota(), "look up", "look up custom_model_training_a2_cpus"),
        ("n1-standard-4", "cpus", (403, {"error": {"message": "no"}}), "look up", "/quotas"),
    ],
)
def test_the_quota_of_a_machine(cloud, answers, capsys, machine_type, name, answer, state, todo):
    answers[f"aiplatform.googleapis.com%2Fcustom_model_training_{name}?view=FULL"] = answer
    answers["nvidia_t4_gpus"] = quota({"effectiveLimit": "1"})
    plan = helpers.setup(
        google(cloud, "quota-project"), machine_type=machine_type, accelerator="NVIDIA_TESLA_T4"
    )
    cpus, gpus = plan[plan["step"] == "quota"].itertuples()
    assert cpus.what.startswith(f"custom_model_training_{name} in us-central1")
    assert (cpus.state, gpus.state) == (state, "there")
    assert todo in cpus.todo
    assert bool(todo) == bool(cpus.todo)
    assert cpus.todo in capsys.readouterr().out


def test_a_quota_to_look_up_does_not_hold_a_project_back(cloud, answers, capsys):
    answers["consumerQuotaMetrics"] = 403, {"error": {"message": "denied"}}
    plan = helpers.setup(google(cloud, "unread-project"), apply=True)
    assert states(plan)["quota"] == {"look up"}
    assert "is ready" in capsys.readouterr().out


def test_a_project_that_is_not_there_is_said_before_anything_is_made(cloud, answers, capsys):
    answers["services:batchGet"] = 403, {"error": {"message": "not found or permission denied"}}
    plan = helpers.setup(google(cloud, "mistyped-project"), apply=True)
    assert "made" not in set(plan["state"])
    assert "There is no project mistyped-project, or you may not see it" in capsys.readouterr().out


def test_who_may_not_make_a_budget_is_told_the_role_on_the_billing_account(cloud, answers):
    answers["/budgets"] = 403, {"error": {"message": "The caller does not have permission"}}
    plan = helpers.setup(google(cloud, "unpaid-project"), apply=True, monthly_budget=20)
    assert states(plan)["budget"] == {"forbidden"}
    todo = plan.set_index("step")["todo"]["budget"]
    assert "billing accounts add-iam-policy-binding ACCOUNT --member=user:YOUR_EMAIL" in todo
    assert "--role=roles/billing.costsManager" in todo


@contextlib.contextmanager
def running(folder, **environment: str):
    cloud = start(folder, **environment)
    try:
        yield cloud
    finally:
        cloud.stop()


def test_a_missing_permission_is_named_and_once_granted_the_rest_is_made(tmp_path):
    denied = "iam.serviceAccounts.create,aiplatform.customJobs.create,storage.buckets.create"
    denied += ",storage.objects.create"
    with running(tmp_path / "state", LOCAL_CLOUD_DENIED=denied) as cloud:
        session = google(cloud, "small-project")
        assert states(helpers.setup(session))["account"] == {"forbidden"}  # a dry run tells it too
        plan = helpers.setup(session, apply=True)
        body = {"name": session.bucket, "location": "us-central1"}
        session.call(
            session.service("storage").buckets().insert(project="small-project", body=body)
        )
        lacks = accounts.caller_lacks(session)
    todo = dict(zip(plan["step"], plan["todo"], strict=True))
    found = states(plan)
    assert found["account"] == {"forbidden"}
    assert found["repository"] == {"missing"}
    assert "forbidden" in found["bucket"]
    command = "gcloud projects add-iam-policy-binding small-project --member=user:YOUR_EMAIL"
    assert f"{command} --role=roles/iam.serviceAccountAdmin" in todo["account"]
    assert f"{command} --role=roles/aiplatform.user" in todo["you"]
    assert lacks[-1].endswith(
        "gcloud storage buckets add-iam-policy-binding gs://small-project-bucket "
        "--member=user:YOUR_EMAIL --role=roles/storage.objectUser"
    )
    with running(tmp_path / "state") as cloud:
        plan = helpers.setup(google(cloud, "small-project"), apply=True)
    assert set(plan["state"]) == {"made", "there"}


PERMISSION = (
    "Permission 'iam.serviceAccounts.actAs' denied on service account notebook-jobs (or it may "
    "not exist)."
)


@pytest.fixture
def late(monkeypatch):
    """Roles that hold only after some refusals: pattern of a call -> refusals to come."""
    patterns, request, sleep = {}, httplib2.Http.request, time.sleep
    monkeypatch.setattr("helpers.cloud.client.time.sleep", lambda s: sleep(min(s, 0.01)))

    def led(self, uri, method="GET", *arguments, **more):
        for pattern, left in patterns.items():
            if left and re.search(pattern, f"{method} {uri}"):
                patterns[pattern] -= 1
                about = {"status": 403, "content-type": "application/json"}
                said = json.dumps({"error": {"message": PERMISSION}}).encode()
                return httplib2.Response(about), said
        return request(self, uri, method, *arguments, **more)

    monkeypatch.setattr(httplib2.Http, "request", led)
    return patterns


def test_roles_given_a_moment_ago_are_waited_for_and_this_is_said(cloud, late, capsys, tmp_path):
    session = google(cloud, "late-project")
    late["POST .*/builds"] = 9
    assert set(helpers.setup(session, apply=True)["state"]) == {"made", "there"}
    said = capsys.readouterr().out
    assert said.count("do not hold yet; Google takes up to 7 minutes") == 1
    late["POST .*/customJobs"] = 3
    job = helpers.train(session, str(notebook(tmp_path, "small.ipynb", SMALL)), wait=False)
    assert capsys.readouterr().out.count("do not hold yet") == 1
    job.cancel()


def test_a_role_that_is_missing_is_not_waited_for(cloud, late, monkeypatch, tmp_path):
    session = google(cloud, "lacking-project")
    helpers.setup(session, apply=True)
    monkeypatch.setattr("helpers.cloud.grants.HOLD_S", -1)  # long ago
    late["POST .*/customJobs"] = 2
    with pytest.raises(CloudError, match=r"lack iam.serviceAccounts.actAs.*iam.serviceAccountUser"):
        helpers.train(session, str(notebook(tmp_path, "small.ipynb", SMALL)))
    assert late["POST .*/customJobs"] == 1


def test_roles_that_never_hold_end_setup_after_minutes(cloud, late, monkeypatch, capsys):
    session, clock = google(cloud, "never-project"), Clock(monkeypatch)
    monkeypatch.setattr("helpers.cloud.grants.HOLD_S", 60)
    late["POST .*/builds"] = 10**6
    plan = helpers.setup(session, apply=True)
    assert states(plan)["image"] == {"forbidden", "missing"}
    assert grants.HOLD_S < clock.passed_s < 2 * grants.HOLD_S
    said = capsys.readouterr().out
    assert said.count("do not hold yet; Google takes up to 1 minutes") == 1
    assert "roles/cloudbuild.builds.editor" in said
    assert "not ready yet" in said


def test_what_a_project_has_shown_is_told_once_and_kept(cloud, capsys):
    session = google(cloud, "first-project")
    helpers.setup(session)
    assert "for the first time" not in capsys.readouterr().out
    helpers.setup(session, apply=True)
    said = capsys.readouterr().out
    assert "Seen here for the first time: environment image" in said
    assert "scale to zero" not in said
    helpers.setup(session, apply=True)
    assert "for the first time" not in capsys.readouterr().out
    kept = json.loads(storage.read_bytes(session, f"gs://{session.bucket}/setup/confirmed.json"))
    assert set(kept) == {"environment image", "serving image"}


def test_every_name_of_what_is_confirmed_is_explained():
    page = (Path(__file__).parents[1] / "docs" / "assumptions.md").read_text()
    assert re.findall(r"(?m)^\| `([a-z ]+)` \|", page) == list(assumptions.SEEN)
