"""Google's own Python SDK, unmodified, as a client of the local cloud: jobs, models, endpoints."""

import functools
import json
import uuid
from pathlib import Path
from urllib.parse import urlsplit

import joblib
import numpy as np
import pytest
from google.api_core import exceptions
from google.auth.transport.requests import AuthorizedSession
from google.cloud import aiplatform, resourcemanager
from google.cloud.aiplatform import hyperparameter_tuning as tuning
from google.cloud.aiplatform.models import ModelRegistry
from google.cloud.aiplatform.utils import resource_manager_utils
from requests.adapters import HTTPAdapter
from sklearn.linear_model import LinearRegression

from helpers import storage
from helpers.cloud import buckets
from tests.emulator.conftest import until
from tests.emulator.saved_models import saved_models  # noqa: F401
from tests.emulator.test_tuning import REPORT

pytestmark = pytest.mark.long

SCRIPT = """\
import os, sys
print("args", sys.argv[1:], "colour", os.environ.get("COLOUR"))
"""
TF_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"
SKLEARN_IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-6:latest"
STAGING = "gs://local-bucket"
MACHINE = "n1-standard-2"


@pytest.fixture
def sdk(emulator, monkeypatch):
    """The SDK, set up with its public settings alone."""
    buckets.create_bucket(emulator.session)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", emulator.url)
    _point(emulator)
    monkeypatch.setattr(aiplatform.initializer.global_config, "_staging_bucket", None)
    return emulator


def _point(emulator) -> None:
    aiplatform.init(
        project="local", location="us-central1", credentials=emulator.session.credentials,
        api_endpoint=emulator.url, api_transport="rest",
    )  # fmt: skip


@pytest.fixture
def name() -> str:
    """Nobody else has it."""
    return f"s{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def regressor(tmp_path_factory) -> Path:
    """A folder with a scikit-learn model in it: y = 2 a + 3 b + 1."""
    rows = np.array([[0, 0], [1, 0], [0, 1], [1, 1]])
    folder = tmp_path_factory.mktemp("regressor")
    joblib.dump(LinearRegression().fit(rows, rows @ [2, 3] + 1), folder / "model.joblib")
    return folder


def container(code: str, **task) -> dict:
    return {
        "machine_spec": {"machine_type": "n1-standard-4"}, "replica_count": 1,
        "container_spec": {"image_uri": "python:3.11", "command": ["python", "-c", code]} | task,
    }  # fmt: skip


def printed(sdk, job: aiplatform.CustomJob, task: str = "workerpool0-0") -> list[str]:
    """What a job's replica wrote."""
    chosen = f'resource.labels.job_id="{job.name}" AND resource.labels.task_name="{task}"'
    body = {"resourceNames": ["projects/local"], "filter": chosen}
    _, answer = sdk.request("POST", "/v2/entries:list", json_body=body)
    return [entry["textPayload"] for entry in answer.get("entries", [])]


# --- jobs


def test_jobs_of_every_form_run_to_their_end(sdk, name, tmp_path):
    """All at once, because the SDK looks every five seconds."""
    (tmp_path / "task.py").write_text(SCRIPT)
    common = {"staging_bucket": STAGING, "credentials": sdk.session.credentials}
    local = {"script_path": str(tmp_path / "task.py"), "args": ["--epochs", "2"]} | common
    prebuilt = aiplatform.CustomJob.from_local_script(
        f"{name}-prebuilt", environment_variables={"COLOUR": "red"}, replica_count=2, **local,
        container_uri="us-docker.pkg.dev/vertex-ai/training/tf-cpu.2-17.py310:latest",
    )  # fmt: skip
    custom = aiplatform.CustomJob.from_local_script(
        f"{name}-custom", environment_variables={"COLOUR": "blue"}, requirements=["numpy>=1"],
        container_uri="gcr.io/deeplearning-platform-release/base-cpu", **local,
    )  # fmt: skip
    spec = prebuilt.to_dict()["jobSpec"]["workerPoolSpecs"][0]["pythonPackageSpec"]
    packaged = aiplatform.CustomJob(
        f"{name}-package", staging_bucket=STAGING, labels={"phase": name},
        worker_pool_specs=[{
            "machine_spec": {"machine_type": "n1-standard-4", "accelerator_count": 1,
                             "accelerator_type": "NVIDIA_TESLA_T4"},
            "replica_count": 1, "disk_spec": {"boot_disk_size_gb": 100},
            "python_package_spec": {
                "executor_image_uri": "gcr.io/cloud-aiplatform/training/tf-cpu.2-2:latest",
                "package_uris": spec["packageUris"], "python_module": spec["pythonModule"],
            },
        }],
    )  # fmt: skip
    failing = aiplatform.CustomJob(
        f"{name}-failing", [container("raise ValueError('boom')")], staging_bucket=STAGING
    )
    jobs = [prebuilt, custom, packaged, failing]
    for job in jobs:
        job.run(sync=False, timeout=600, restart_job_on_worker_restart=True)
    for job in jobs[:3]:
        job.wait()
        assert job.state.name == "JOB_STATE_SUCCEEDED"
    with pytest.raises(RuntimeError, match="ValueError: boom"):
        failing.wait()
    assert printed(sdk, prebuilt) == ["args ['--epochs', '2'] colour red"]
    assert printed(sdk, custom) == ["args ['--epochs', '2'] colour blue"]
    assert printed(sdk, packaged) == ["args [] colour None"]
    assert "Accepted without effect: acceleratorCount, acceleratorType, diskSpec." in printed(
        sdk, packaged, "service"
    )
    shown = packaged.to_dict()
    assert shown["jobSpec"]["baseOutputDirectory"]["outputUriPrefix"].startswith(STAGING)
    assert shown["labels"] == {"phase": name}
    machine = shown["jobSpec"]["workerPoolSpecs"][0]["machineSpec"]
    assert machine["acceleratorType"] == "NVIDIA_TESLA_T4"

    listed = aiplatform.CustomJob.list(
        filter=f'display_name:"{name}-p*" AND state="JOB_STATE_SUCCEEDED"', order_by="display_name"
    )
    assert [job.name for job in listed] == [packaged.name, prebuilt.name]
    names = [job.display_name for job in jobs]
    either = " OR ".join(f'display_name="{each}"' for each in names)
    listed = aiplatform.CustomJob.list(
        filter=f'({either}) AND state="JOB_STATE_SUCCEEDED"', order_by="display_name desc"
    )
    assert [job.display_name for job in listed] == sorted(names[:3], reverse=True)
    assert [j.name for j in aiplatform.CustomJob.list(filter=f'labels.phase="{name}"')] == [
        packaged.name
    ]
    assert aiplatform.CustomJob.get(custom.resource_name).display_name == f"{name}-custom"
    packaged.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.CustomJob.get(packaged.resource_name)


def test_a_search_for_parameters(sdk, name):
    """Grid search with numbers and words, and the default search over a range."""
    job = aiplatform.CustomJob(name, [container(REPORT)], staging_bucket=STAGING)
    kinds = {
        "x": tuning.IntegerParameterSpec(min=2, max=3, scale="linear"),
        "y": tuning.DiscreteParameterSpec(values=[0.5], scale=None),
        "z": tuning.CategoricalParameterSpec(values=["relu", "tanh"]),
    }
    common = {"custom_job": job, "metric_spec": {"loss": "minimize"}, "parallel_trial_count": 2}
    grid = aiplatform.HyperparameterTuningJob(
        f"{name}-grid", parameter_spec=kinds, max_trial_count=9, search_algorithm="grid",
        measurement_selection="last", **common,
    )  # fmt: skip
    x = tuning.DoubleParameterSpec(min=1e-3, max=10, scale="log")
    default = aiplatform.HyperparameterTuningJob(
        f"{name}-default", parameter_spec={"x": x}, max_trial_count=3, **common
    )
    for each in (grid, default):
        each.run(sync=False)
    for each in (grid, default):
        each.wait()
        assert each.state.name == "JOB_STATE_SUCCEEDED"
    assert [trial.final_measurement.metrics[0].value for trial in grid.trials] == [1, 1, 0.5, 0.5]
    words = [trial.parameters[2].value for trial in grid.trials]
    assert words == ["relu", "tanh", "relu", "tanh"]
    assert len(default.trials) == 3
    assert {trial.state.name for trial in default.trials} == {"SUCCEEDED"}
    listed = aiplatform.HyperparameterTuningJob.list(filter=f'display_name="{name}-grid"')
    assert [each.name for each in listed] == [grid.name]
    grid.cancel()
    grid.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.HyperparameterTuningJob.get(grid.resource_name)


def test_a_submitted_job_is_cancelled(sdk, name):
    job = aiplatform.CustomJob(
        name, [container("import time; time.sleep(600)")], staging_bucket=STAGING
    )
    job.submit()
    until(lambda: job.state.name == "JOB_STATE_RUNNING")
    job.cancel()
    until(lambda: job.state.name == "JOB_STATE_CANCELLED")
    assert job.error.message.startswith("CANCELED")
    job.delete()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"replica_count": 2}, "first pool has exactly one replica"),
        ({"machine_spec": {"machine_type": "big"}}, "not supported"),
        ({"container_spec": {"command": ["true"]}}, "image_uri"),
    ],
)
def test_a_job_google_would_refuse_is_refused(sdk, name, change, said):
    job = aiplatform.CustomJob(name, [container("") | change], staging_bucket=STAGING)
    with pytest.raises(exceptions.BadRequest, match=said):
        job.submit()


# --- models


def test_versions_and_aliases_from_a_local_file(sdk, name, regressor, monkeypatch):
    """The SDK makes a staging bucket of its own, and asks whose it is before it uses it again."""
    rest = functools.partial(
        resourcemanager.ProjectsClient, transport="rest", client_options={"api_endpoint": sdk.url}
    )  # no setting of aiplatform reaches this client
    monkeypatch.setattr(resource_manager_utils.resourcemanager, "ProjectsClient", rest)
    aliases = ["system-test", "testing"]
    file = str(regressor / "model.joblib")
    first = aiplatform.Model.upload_scikit_learn_model_file(
        file, model_id=name, display_name=name, version_aliases=aliases,
        version_description="My description", labels={"phase": "test"},
    )  # fmt: skip
    assert "-vertex-staging-" in first.uri
    assert first.version_aliases == aliases == ["system-test", "testing", "default"]
    second = aiplatform.Model.upload_scikit_learn_model_file(
        file, parent_model=name, is_default_version=False
    )
    assert (second.version_id, second.version_aliases) == ("2", [])
    assert second.resource_name == first.resource_name

    registry = second.versioning_registry
    listed = registry.list_versions()
    assert [version.version_id for version in listed] == ["1", "2"]
    assert registry.get_version_info("testing") == listed[0]
    assert listed[0].version_description == "My description"
    assert listed[0].version_update_time == first.version_update_time
    clone = registry.get_model()
    assert (clone.name, clone.version_id) == (first.name, "1")
    chosen = registry.list_versions(filter="labels.phase=test")
    assert [version.version_id for version in chosen] == ["1", "2"]  # they are the model's

    registry = ModelRegistry(first)
    registry.add_version_aliases(["new-alias"], "default")
    registry.remove_version_aliases(["testing"], "new-alias")
    assert registry.get_model("new-alias").version_aliases == [
        "system-test", "default", "new-alias",
    ]  # fmt: skip
    registry.update_version("1", version_description="again", labels={"phase": "live"})
    assert registry.get_version_info("1").version_description == "again"
    assert registry.get_model("1").labels == {"phase": "live"}
    registry.add_version_aliases(["default"], "2")
    assert registry.get_model().version_id == "2"
    with pytest.raises(exceptions.BadRequest, match="default"):
        registry.delete_version("2")
    registry.delete_version("1")
    assert [version.version_id for version in registry.list_versions()] == ["2"]

    model = aiplatform.Model(name)
    model.update(display_name=f"{name}-b", description="new", labels={"a": "b"})
    again = aiplatform.Model(f"{name}@2")
    assert (again.display_name, again.description) == (f"{name}-b", "new")
    found = aiplatform.Model.list(filter=f'display_name="{name}-b"', order_by="create_time desc")
    assert [each.name for each in found] == [name]
    model.delete()
    with pytest.raises(exceptions.NotFound):
        aiplatform.Model(name)


def test_a_model_from_the_bucket(sdk, name, tmp_path):
    (tmp_path / "saved_model.pb").write_bytes(b"graph")
    storage.upload_folder(sdk.session, tmp_path, f"{STAGING}/{name}/")
    model = aiplatform.Model.upload(
        display_name=name, artifact_uri=f"{STAGING}/{name}", serving_container_image_uri=TF_IMAGE,
        serving_container_environment_variables={"A": "1"}, serving_container_ports=[8080],
        serving_container_predict_route="/predict", serving_container_health_route="/health",
        description="from the bucket",
    )  # fmt: skip
    assert model.uri == f"{STAGING}/{name}"
    assert (model.version_id, model.version_aliases) == ("1", ["default"])
    assert model.container_spec.image_uri == TF_IMAGE
    assert model.supported_deployment_resources_types[0].name == "DEDICATED_RESOURCES"
    folder = aiplatform.Model.upload(
        display_name=name, artifact_uri=str(tmp_path), serving_container_image_uri=TF_IMAGE,
        parent_model=model.resource_name, is_default_version=True, staging_bucket=STAGING,
    )  # fmt: skip
    assert (folder.version_id, folder.version_aliases) == ("2", ["default"])
    assert folder.uri.startswith(f"{STAGING}/vertex_ai_auto_staging/")
    copy = next((sdk.folder / "models").glob(f"*.{model.name}")) / "2" / "saved_model.pb"
    assert copy.read_bytes() == b"graph"
    with pytest.raises(exceptions.BadRequest, match="no files under"):
        aiplatform.Model.upload(
            display_name=name, artifact_uri=f"{STAGING}/nothing-{name}",
            serving_container_image_uri=TF_IMAGE,
        )  # fmt: skip
    model.delete()


# --- endpoints


class ToLocalCloud(HTTPAdapter):
    """A way for the calls whose https address the SDK writes itself."""

    def __init__(self, url: str):
        super().__init__()
        self.url = url

    def send(self, request, **how):
        asked = urlsplit(request.url)
        if asked.hostname.endswith(".prediction.vertexai.goog"):
            request.headers["Host"] = asked.hostname
        request.url = f"{self.url}{asked.path}"
        return super().send(request, **how)


def with_way(sdk, endpoint: aiplatform.Endpoint) -> aiplatform.Endpoint:
    endpoint.authorized_session = AuthorizedSession(sdk.session.credentials)
    endpoint.authorized_session.mount("https://", ToLocalCloud(sdk.url))
    return endpoint


@pytest.fixture(scope="module")
def sklearn_model(emulator, regressor):
    buckets.create_bucket(emulator.session)
    name = f"s{uuid.uuid4().hex[:8]}"
    storage.upload_folder(emulator.session, regressor, f"{STAGING}/{name}/")
    _point(emulator)
    yield aiplatform.Model.upload(
        display_name=name, model_id=name, artifact_uri=f"{STAGING}/{name}/",
        serving_container_image_uri=SKLEARN_IMAGE,
    )  # fmt: skip
    _point(emulator)
    aiplatform.Model(name).delete()


def test_an_endpoint_from_its_first_model_to_its_end(sdk, name, sklearn_model, saved_models):  # noqa: F811
    endpoint = aiplatform.Endpoint.create(
        name, endpoint_id=name, description="a", labels={"phase": "test"}
    )
    assert endpoint.name == name
    rows = [[1, 0], [0, 1]]
    endpoint.deploy(
        sklearn_model, machine_type=MACHINE, deployed_model_display_name="linear",
        min_replica_count=1, max_replica_count=2,
    )  # fmt: skip
    answer = endpoint.predict(rows)
    np.testing.assert_allclose(answer.predictions, [3, 4])
    assert answer.model_resource_name == sklearn_model.resource_name
    assert answer.model_version_id == "1"
    (linear,) = endpoint.list_models()
    assert (linear.id, linear.display_name) == (answer.deployed_model_id, "linear")
    assert linear.dedicated_resources.max_replica_count == 2

    tensorflow = aiplatform.Model.upload_tensorflow_saved_model(
        str(saved_models / "one" / "1"), display_name=f"{name}-tf", staging_bucket=STAGING
    )
    tensorflow.deploy(endpoint, traffic_percentage=30, machine_type=MACHINE)
    other = next(m.id for m in endpoint.list_models() if m.id != linear.id)
    assert endpoint.traffic_split == {linear.id: 70, other: 30}
    endpoint.update(traffic_split={other: 100}, description="b", labels={"phase": "live"})
    assert (endpoint.gca_resource.description, endpoint.labels) == ("b", {"phase": "live"})
    answer = endpoint.predict([{"a": 1, "b": 1}])
    assert (answer.predictions, answer.deployed_model_id) == ([5.0], other)
    with pytest.raises(exceptions.BadRequest, match="a"):
        endpoint.predict([{"wrong": 1}])

    same = aiplatform.Endpoint.list(filter=f'labels.phase="live" AND display_name="{name}"')
    assert [each.resource_name for each in same] == [endpoint.resource_name]
    assert {m.id for m in same[0].list_models()} == {linear.id, other}
    with pytest.raises(exceptions.BadRequest, match="deployed"):
        tensorflow.delete()
    endpoint.undeploy(linear.id)
    assert [m.id for m in endpoint.list_models()] == [other]
    endpoint.undeploy_all()
    assert endpoint.list_models() == []
    with pytest.raises(exceptions.BadRequest, match="traffic_split"):
        endpoint.predict(rows)
    endpoint.delete()
    tensorflow.delete()


def test_raw_predictions_and_a_dedicated_endpoint(sdk, name, sklearn_model):
    """model.deploy makes the shared endpoint; a forced delete undeploys."""
    body, kind = json.dumps({"instances": [[1, 1]]}), {"Content-Type": "application/json"}
    shared = with_way(sdk, sklearn_model.deploy(machine_type=MACHINE))
    dedicated = aiplatform.Endpoint.create(name, dedicated_endpoint_enabled=True)
    dedicated.deploy(sklearn_model, machine_type=MACHINE, traffic_split={"0": 100})
    with_way(sdk, dedicated)
    for endpoint in (shared, dedicated):
        raw = endpoint.raw_predict(body, kind)
        assert (raw.status_code, raw.json()) == (200, {"predictions": [pytest.approx(6)]})
        plain = endpoint.predict([[1, 1]])
        through = endpoint.predict([[1, 1]], use_raw_predict=True)
        assert through.predictions == plain.predictions == [pytest.approx(6)]
        for attribute in ("deployed_model_id", "model_resource_name", "model_version_id"):
            assert getattr(through, attribute) == getattr(plain, attribute), attribute
    large = [[0.1234567890123456, 0.1234567890123456]] * 50_000  # 2 MB
    refused = shared.raw_predict(json.dumps({"instances": large}), kind)
    assert (refused.status_code, "1500000 bytes" in refused.text) == (400, True)
    assert len(dedicated.predict(large).predictions) == len(large)
    refused = dedicated.raw_predict(" " * 10_000_001, kind)
    assert (refused.status_code, "10000000 bytes" in refused.text) == (400, True)
    status, answer = sdk.request(
        "POST", f"/v1/{dedicated.resource_name}:predict", body=body, headers=kind
    )
    assert status == 400
    assert dedicated.dedicated_endpoint_dns in answer["error"]["message"]
    for endpoint in (shared, dedicated):
        endpoint.delete(force=True)
        with pytest.raises(exceptions.NotFound):
            aiplatform.Endpoint(endpoint.resource_name).list_models()


def test_an_image_nothing_stands_in_for_fails_the_deploy(sdk, name, regressor):
    model = aiplatform.Model.upload(
        display_name=name, artifact_uri=str(regressor), staging_bucket=STAGING,
        serving_container_image_uri="us-docker.pkg.dev/vertex-ai/prediction/xgboost-cpu.1-7:latest",
    )  # fmt: skip
    with pytest.raises(exceptions.BadRequest, match=r"xgboost-cpu.1-7.* sklearn"):
        model.deploy(machine_type=MACHINE)
    for endpoint in aiplatform.Endpoint.list(filter=f'display_name="{name}_endpoint"'):
        endpoint.delete()
    model.delete()
