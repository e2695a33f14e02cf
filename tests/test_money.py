"""What bills, at which price, and what is said when Google refuses: nothing costly stays behind."""

import json
import re
import uuid

import httplib2
import numpy as np
import pandas as pd
import psutil
import pytest
from google.auth.exceptions import RefreshError
from google.oauth2.credentials import Credentials

import helpers
from helpers import storage
from helpers.cloud import buckets
from helpers.errors import CloudError, NotFoundError, SettingError
from tests.emulator.conftest import start, until
from tests.test_train import SMALL, notebook

pytestmark = pytest.mark.long

ROWS = pd.DataFrame({"size": [20.0, None], "kind": ["a", "b"]})
PREDICT = "Vertex AI: Online/Batch Prediction"
TRAIN = "Vertex AI: Training/Pipelines"


def sku(description: str, usd: float, unit: str = "h", region: str = "us-central1") -> dict:
    """An entry of the price list, as cloudbilling's services.skus.list gives it."""
    free = {"currencyCode": "USD", "units": "0", "nanos": 0}
    money = {"currencyCode": "USD", "units": str(int(usd)), "nanos": round(usd % 1 * 1e9)}
    rates = [{"startUsageAmount": 0, "unitPrice": free}] if unit == "GiBy.mo" else []
    rates.append({"startUsageAmount": 5 * len(rates), "unitPrice": money})
    expression = {"usageUnit": unit, "tieredRates": rates, "displayQuantity": 1}
    return {
        "name": "services/S/skus/X", "skuId": "X", "description": description,
        "category": {"usageType": "OnDemand"}, "serviceRegions": [region],
        "pricingInfo": [
            {"pricingExpression": expression, "effectiveTime": "2026-11-20T08:00:00.000Z"}
        ],
    }  # fmt: skip


VERTEX = "C7E2-9256-1C43"
SKUS = {
    VERTEX: [
        sku(f"{PREDICT} N1 Predefined Instance Core running in Americas", 0.036),
        sku(f"{PREDICT} N1 Predefined Instance Ram running in Americas", 0.005, "GiBy.h"),
        sku(f"{PREDICT} N1 Predefined Instance Core running in EMEA", 9, region="europe-west4"),
        sku(f"{PREDICT} N2D AMD Instance Core running in Americas", 9),
        sku(f"{PREDICT} E2 Instance Core running in Americas", 0.02),
        sku(f"{PREDICT} E2 Instance Core running in Iowa", 0.03),
        sku(f"{PREDICT} E2 Instance Ram running in Americas", 0.003, "GiBy.h"),
        sku(f"{TRAIN} on N1 Predefined Instance Core running in Americas", 0.03),
        sku(f"{TRAIN} on N1 Predefined Instance Ram running in Americas", 0.004, "GiBy.h"),
        sku(f"{TRAIN} Management fee on N1 Instance Core in Americas", 0.002),
        sku(f"{TRAIN} Management fee on N1 Instance RAM in Americas", 0.001, "GiBy.h"),
    ],
    "95FF-2EF5-5EA1": [
        sku("Standard Storage US Regional", 0.02, "GiBy.mo"),
        sku("Standard Storage Iowa Dual-region", 9, "GiBy.mo"),
        sku("Nearline Storage Iowa", 9, "GiBy.mo"),
    ],
    "149C-F9EC-3994": [sku("Artifact Registry Storage", 0.1, "GiBy.mo", "global")],
}


@pytest.fixture
def google(session):
    """Google mode, on a project of its own of the worker's local cloud."""
    name = f"money-{uuid.uuid4().hex[:8]}"
    made = helpers.connect(
        "google", project=name, bucket=name, endpoint=session.endpoint,
        credentials=session.credentials,
    )  # fmt: skip
    buckets.create_bucket(made)
    yield made
    helpers.cleanup(made)


@pytest.fixture
def answers(monkeypatch):
    """Answers of Google's that the local cloud can't bring about: pattern of a call -> answer."""
    said, request = {}, httplib2.Http.request

    def led(self, uri, method="GET", body=None, headers=None, **more):
        for pattern, answer in said.items():
            if re.search(pattern, f"{method} {uri}"):
                if isinstance(answer, Exception):
                    raise answer
                about = {"status": answer[0], "content-type": "application/json"}
                return httplib2.Response(about), json.dumps(answer[1]).encode()
        return request(self, uri, method, body, headers, **more)

    monkeypatch.setattr(httplib2.Http, "request", led)
    return said


def refused(code: int, message: str) -> tuple[int, dict]:
    return code, {"error": {"code": code, "message": message}}


def model(session, trained, name: str = "prices", number: int = 1):
    base = f"gs://{session.bucket}/jobs/made/{number}"
    storage.upload_file(session, trained / "metrics.json", f"{base}/metrics.json")
    uri = storage.upload_folder(session, trained / "model", f"{base}/model")
    return helpers.register(session, uri, name=name)


def endpoints(session) -> list[dict]:
    collection = session.service("aiplatform", "v1beta1").projects().locations().endpoints()
    return session.list(collection, "endpoints", parent=session.parent)


def test_what_bills_and_what_is_left(google, answers, trained, tmp_path, capsys):
    """Machines, objects and images at list prices; then all of it removed, in two steps."""
    for service, skus in SKUS.items():
        half = len(skus) // 2
        answers[rf"GET .*/services/{service}/skus.*pageToken=2"] = 200, {"skus": skus[half:]}
        page = {"skus": skus[:half], "nextPageToken": "2"}
        answers[rf"GET .*/services/{service}/skus"] = 200, page
    helpers.deploy(google, model(google, trained), always_on=True)
    slow = notebook(tmp_path, "slow.ipynb", "import time\ntime.sleep(300)")
    job = helpers.train(google, str(slow), wait=False)
    bill = helpers.costs(google).set_index("what")
    assert set(bill.index) == {"endpoint", "training job", "bucket", "images"}
    np.testing.assert_allclose(
        bill["usd_per_hour"].loc[["endpoint", "training job"]],
        [2 * 0.036 + 7.5 * 0.005, 4 * (0.03 + 0.002) + 15 * (0.004 + 0.001)],
    )
    assert (bill["price"] == "Cloud Billing price list of 2026-11-20").all()
    np.testing.assert_allclose(bill["usd_per_day"], 24 * bill["usd_per_hour"])
    stored = sum(f.stat().st_size for f in trained.rglob("*") if f.is_file())
    assert 0 < bill["usd_per_hour"]["bucket"] < 20 * stored / 2**30 * 0.02 / 730
    assert bill["usd_per_hour"]["images"] > 0
    job.cancel()
    until(lambda: job.state == "CANCELLED")

    helpers.cleanup(google, name="prices", dry_run=True)
    assert "Would remove endpoint prices" in capsys.readouterr().out
    assert len(endpoints(google)) == 1
    helpers.cleanup(google, name="prices")
    assert "Nothing that bills by the hour is left." in capsys.readouterr().out
    assert helpers.find_model(google, "prices").version == "1"
    for _ in range(2):
        helpers.cleanup(google, objects=True, images=True)
    assert "Nothing to do." in capsys.readouterr().out
    assert helpers.costs(google).empty
    with pytest.raises(NotFoundError):
        helpers.find_model(google, "prices")


def test_a_price_is_never_guessed(google, answers):
    """Two entries that fit, a machine of unknown shape, a list that can't be read: look it up."""
    machines = ("e2-standard-2", "c3-standard-4")
    deployed = [
        {"dedicatedResources": {"machineSpec": {"machineType": machine}, "minReplicaCount": 1},
         "createTime": "2026-11-20T08:00:00Z"}
        for machine in machines
    ]  # fmt: skip
    found = {
        "displayName": "e",
        "labels": {"made-by": "colab-to-cloud"},
        "deployedModels": deployed,
    }
    answers["GET .*/endpoints"] = 200, {"endpoints": [found]}
    vertex = rf"/services/{VERTEX}/skus"
    for skus in (refused(403, "API is disabled"), (200, {}), (200, {"skus": SKUS[VERTEX]})):
        answers[vertex] = skus
        bill = helpers.costs(google)
        assert list(bill["machine"]) == [f"1 × {machine}" for machine in machines]
        assert bill["usd_per_hour"].isna().all()
        assert bill["price"].str.startswith("look up: https://").all()
    answers["GET .*/endpoints"] = 200, {}


def test_what_others_made_is_not_ours(google):
    collection = google.service("aiplatform").projects().locations().endpoints()
    made = collection.create(parent=google.parent, body={"displayName": "theirs"})
    google.wait(google.call(made))
    storage.write_bytes(google, b"theirs", f"gs://{google.bucket}/data/rows.csv")
    helpers.cleanup(google, objects=True, images=True)
    assert [found["displayName"] for found in endpoints(google)] == ["theirs"]
    assert storage.list_uris(google, f"gs://{google.bucket}/") == [
        f"gs://{google.bucket}/data/rows.csv"
    ]


# --- Scale to zero


@pytest.mark.long
def test_an_endpoint_nobody_asks_stops_and_starts_again(tmp_path, trained, capsys):
    cloud = start(tmp_path / "state", LOCAL_CLOUD_IDLE_S="1")
    try:
        session = helpers.connect(
            "google", project="idle-project", bucket="idle-bucket", endpoint=cloud.url,
            credentials=Credentials(token=cloud.token),
        )  # fmt: skip
        buckets.create_bucket(session)
        first = model(session, trained)
        endpoint = helpers.deploy(session, first, idle_shutdown_s=300)
        answer = helpers.predict(endpoint, ROWS)
        pool = endpoints(session)[0]["deployedModels"][0]["dedicatedResources"]
        assert pool["scaleToZeroSpec"]["idleScaledownPeriod"] == "300s"
        assert (pool["minReplicaCount"], pool["maxReplicaCount"]) == (0, 1)
        assert "none when idle" in helpers.costs(session)["machine"][0]
        until(lambda: not servers(cloud))
        assert "After 300 s without a request" in capsys.readouterr().out
        pd.testing.assert_frame_equal(helpers.predict(endpoint, ROWS), answer)
        assert "had scaled to zero" in capsys.readouterr().out
        # Two versions can't: the first is told to stay up before the second comes.
        helpers.deploy(session, model(session, trained, number=2), traffic_percent=10)
        assert "both stay up" in capsys.readouterr().out
        pools = [d["dedicatedResources"] for d in endpoints(session)[0]["deployedModels"]]
        assert [pool["minReplicaCount"] for pool in pools] == [1, 1]
        assert not [pool for pool in pools if "scaleToZeroSpec" in pool]
        helpers.cleanup(session)
    finally:
        cloud.stop()


def servers(cloud) -> list:
    children = psutil.Process(cloud.process.pid).children(recursive=True)
    return [c for c in children if any(word.endswith("model_server.py") for word in words(c))]


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return []


def test_a_deployment_that_fails_beside_a_running_one_gives_it_its_rest_back(
    google, answers, trained
):
    helpers.deploy(google, model(google, trained))
    before = endpoints(google)[0]["deployedModels"]
    second = model(google, trained, number=2)
    answers["POST .*/v1/.*:deployModel"] = refused(400, "not this one")
    with pytest.raises(CloudError, match="not this one"):
        helpers.deploy(google, second, traffic_percent=10)
    assert endpoints(google)[0]["deployedModels"] == before
    assert before[0]["dedicatedResources"]["scaleToZeroSpec"]["idleScaledownPeriod"] == "3600s"
    answers.clear()


def test_scaling_to_zero_may_be_refused(google, answers, trained):
    answers["POST .*/v1beta1/.*:deployModel"] = refused(400, "scale_to_zero_spec: not here.")
    made = model(google, trained)
    with pytest.raises(CloudError, match=r"scale_to_zero_spec: not here.*always_on=True") as caught:
        helpers.deploy(google, made)
    assert "3600" not in str(caught.value)
    with pytest.raises(CloudError, match=r"names 300 s and 3600 s.*try idle_shutdown_s=3600"):
        helpers.deploy(google, made, idle_shutdown_s=300)
    assert endpoints(google) == []
    answers["POST .*/v1/.*:deployModel"] = refused(400, "always on")
    with pytest.raises(CloudError, match=r"always on") as caught:
        helpers.deploy(google, made, always_on=True)
    assert "always_on=True" not in str(caught.value)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"idle_shutdown_s": 299}, "expected 300 to 28800"),
        ({"idle_shutdown_s": 28_801}, "always_on=True"),
        ({"machine_type": "n1"}, "expected a name"),
        ({"traffic_percent": 101}, "1 to 100"),
    ],
)
def test_settings_of_a_deployment_are_refused_unsent(google, trained, setting, said):
    made = model(google, trained)
    with pytest.raises(SettingError, match=said):
        helpers.deploy(google, made, **setting)
    assert endpoints(google) == []


# --- Refusals, each with its next step


def test_a_region_that_does_not_exist(google, session):
    other = helpers.connect(
        "google", project=google.project, bucket=google.bucket, location="moon-central1",
        endpoint=session.endpoint, credentials=session.credentials,
    )  # fmt: skip
    with pytest.raises(CloudError, match=r'Unsupported region.*LOCATION="moon-central1"'):
        helpers.find_endpoint(other, "prices")


def test_a_region_without_a_host(google, answers, monkeypatch):
    """What a wrong region is like at Google: its address does not exist."""
    monkeypatch.setattr("helpers.cloud.client.time.sleep", lambda seconds: None)
    error = httplib2.ServerNotFoundError("Unable to find the server at moon-aiplatform")
    answers["/endpoints"] = error
    with pytest.raises(CloudError, match=r'LOCATION="us-central1"; the regions that exist: http'):
        helpers.find_endpoint(google, "prices")


def test_a_bucket_in_another_region(session, trained, tmp_path):
    name = f"far-{uuid.uuid4().hex[:8]}"
    far = {
        location: helpers.connect(
            "google", project=name, bucket=name, location=location, endpoint=session.endpoint,
            credentials=session.credentials,
        )
        for location in ("europe-west4", "us-central1")
    }  # fmt: skip
    buckets.create_bucket(far["europe-west4"])
    here = far["us-central1"]
    said = r"is in europe-west4, the jobs would run in us-central1. Set LOCATION"
    with pytest.raises(SettingError, match=said):
        helpers.train(here, str(notebook(tmp_path, "small.ipynb", SMALL)))
    uri = storage.upload_folder(here, trained / "model", f"gs://{name}/jobs/model")
    with pytest.raises(SettingError, match=said):
        helpers.register(here, uri, name="prices")
    assert set(helpers.costs(here)["what"]) == {"bucket"}


def test_a_bucket_that_does_not_exist(google, tmp_path):
    google.call(google.service("storage").buckets().delete(bucket=google.bucket))
    with pytest.raises(CloudError, match=r"bucket does not exist.*Run 00_setup.ipynb"):
        helpers.train(google, str(notebook(tmp_path, "small.ipynb", SMALL)))
    buckets.create_bucket(google)


@pytest.mark.parametrize("labels", [{"Phase": "test"}, {"phase": "Test run"}, {"1": "x"}])
def test_bad_labels(google, trained, tmp_path, labels):
    made = model(google, trained)
    for make in (
        lambda: helpers.train(google, str(notebook(tmp_path, "s.ipynb", SMALL)), labels=labels),
        lambda: helpers.register(google, made.artifact_uri, name="other", labels=labels),
        lambda: helpers.batch_predict(google, made, ROWS, labels=labels),
    ):
        with pytest.raises(SettingError, match=r"Label .* is not usable"):
            make()
    assert set(helpers.costs(google)["what"]) == {"bucket", "images"}


QUOTA = "The following quota metrics exceed quota limits: aiplatform.googleapis.com/custom_model_"
DENIED = (
    "Permission 'aiplatform.{0}' denied on resource '//aiplatform.googleapis.com/projects/p/"
    "locations/us-central1' (or it may not exist)."
)
BILLING = "This API method requires billing to be enabled. Please enable billing on project #1"
REFUSALS = {
    "quota": (429, QUOTA + "{1}", r"answered 429: .*quota metrics.*iam-admin/quotas\?project="),
    "permission": (403, DENIED, r"lack aiplatform\..*--role=roles/aiplatform.user"),
    "billing": (403, BILLING, r"billing/linkedaccount\?project="),
    "off": (403, "Vertex AI API has not been used in project 1 before", r"Run 00_setup"),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_a_refusal_says_what_to_do_and_leaves_nothing(google, answers, trained, tmp_path, kind):
    status, message, said = REFUSALS[kind]
    made = model(google, trained)
    message = message.format("endpoints.deploy", "serving_cpus")
    answers["POST .*:deployModel"] = refused(status, message)
    with pytest.raises(CloudError, match=said) as caught:
        helpers.deploy(google, made)
    assert caught.value.status == status
    answers["POST .*/customJobs"] = refused(status, message.replace("endpoints.deploy", "x.create"))
    with pytest.raises(CloudError, match=said):
        helpers.train(google, str(notebook(tmp_path, "small.ipynb", SMALL)))
    assert endpoints(google) == []
    assert set(helpers.costs(google)["what"]) == {"bucket", "images"}


def test_a_quota_may_be_met_while_a_machine_starts(google, answers, trained):
    """The call was taken; the operation says it, with the number of the status."""
    made = model(google, trained)
    name = f"{google.parent}/endpoints/prices/operations/1"
    answers["POST .*:deployModel"] = 200, {"name": name}
    answers["GET .*/operations/1"] = (
        200, {"name": name, "done": True, "error": {"code": 8, "message": QUOTA}}
    )  # fmt: skip
    with pytest.raises(CloudError, match=r"iam-admin/quotas") as caught:
        helpers.deploy(google, made)
    assert caught.value.status == 429
    assert endpoints(google) == []


def test_a_sign_in_that_ends_in_the_middle_of_a_wait(google, answers, tmp_path):
    slow = notebook(tmp_path, "slow.ipynb", "import time\ntime.sleep(300)")
    job = helpers.train(google, str(slow), wait=False)
    until(lambda: job.state == "RUNNING")
    answers["."] = RefreshError("invalid_grant: Token has been expired or revoked.")
    with pytest.raises(CloudError, match=r"expired or revoked.*sign-in has ended.*again") as caught:
        job.wait()
    assert caught.value.status == 401
    answers.clear()
    assert helpers.find_job(google).name == job.name
    job.cancel()
    until(lambda: job.state == "CANCELLED")


def test_a_sign_in_that_ends_while_an_endpoint_starts(google, answers, trained, monkeypatch):
    """What was under way is found again: the same call ends what it began."""
    made = model(google, trained)
    answers["GET .*/operations/"] = RefreshError("invalid_grant")
    with pytest.raises(CloudError, match="sign-in has ended"):
        helpers.deploy(google, made)
    answers.clear()
    assert helpers.deploy(google, made).traffic == {"1": 100}
    answers[":rawPredict"] = RefreshError("invalid_grant")
    with pytest.raises(CloudError, match="sign-in has ended"):
        helpers.predict(helpers.find_endpoint(google, "prices"), ROWS)
