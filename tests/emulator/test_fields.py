"""Every field of every request is sent: what the discovery documents know is kept and honoured, or
kept and listed as without effect, or refused with 501. (Cloud Storage: test_fields_storage.py.)
"""

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import pytest
from sklearn.linear_model import LinearRegression

from helpers.emulator.front import app, calls, discovery, honoured_fields
from helpers.emulator.services import batch_rows
from helpers.emulator.services.endpoints import COUNTS
from helpers.emulator.services.serving import Answer
from tests.emulator.conftest import Emulator, until
from tests.emulator.saved_models import register

app.App(None)
METHODS = {
    f"{m.document['version']} {m.id}": m
    for head in discovery.DOCUMENTS for m in discovery.methods(head)
    if discovery.handler(m.id) and m.document["name"] != "storage"
}  # fmt: skip
WITH_BODY = [name for name, method in METHODS.items() if "request" in method.about]
PARENT = "projects/local/locations/us-central1"

# --- what the local cloud goes by, and the test that shows it

KEPT = "test_fields.py::test_what_is_sent_is_kept"  # nothing more is asked of these
HONOURED = {
    KEPT: """
        BatchPredictionJob.displayName BatchPredictionJob.labels Budget.displayName Build.tags
        CustomJob.labels Endpoint.description HyperparameterTuningJob.displayName
        HyperparameterTuningJob.labels Model.description Model.labels Model.metadata
        Model.metadataSchemaUri Model.pipelineJob Model.versionDescription
        ModelDataStats.testAnnotationsCount ModelDataStats.testDataItemsCount
        ModelDataStats.trainingAnnotationsCount ModelDataStats.trainingDataItemsCount
        ModelDataStats.validationAnnotationsCount ModelDataStats.validationDataItemsCount
        Policy.version PredictSchemata.instanceSchemaUri PredictSchemata.parametersSchemaUri
        PredictSchemata.predictionSchemaUri ProjectBillingInfo.billingAccountName
        Repository.description Repository.labels ServiceAccount.description
        ServiceAccount.displayName""",
    "test_batch.py::test_a_model_of_named_inputs_takes_objects_and_fails_on_csv":
        "BatchPredictionJobInstanceConfig.keyField BatchPredictionJob.model",
    "test_batch.py::test_fields_are_chosen_and_arranged": """
        BatchPredictionJobInstanceConfig.includedFields
        BatchPredictionJobInstanceConfig.excludedFields
        BatchPredictionJobInstanceConfig.instanceType""",
    "test_batch.py::test_files_are_found_by_wildcards_and_scored_in_order":
        "GcsSource.uris BatchPredictionJobInputConfig.instancesFormat",
    "test_batch.py::test_jobs_that_cannot_work": "BatchPredictionJobOutputConfig.predictionsFormat",
    "test_batch.py::test_the_batch_size_is_honoured": "ManualBatchTuningParameters.batchSize",
    "test_batch.py::test_the_job_says_where_its_output_is_and_what_made_it":
        "GcsDestination.outputUriPrefix",
    "test_builds.py::test_a_build_is_what_its_steps_say": """
        Build.images Build.substitutions BuildStep.name BuildStep.args StorageSource.bucket
        StorageSource.object""",
    "test_builds.py::test_a_tag_that_is_immutable_is_given_once":
        "DockerRepositoryConfig.immutableTags Repository.format Repository.mode",
    "test_endpoints.py::test_a_dedicated_endpoint_is_reached_by_its_own_host_only":
        "Endpoint.dedicatedEndpointEnabled",
    "test_endpoints.py::test_an_answer_says_which_version_gave_it": """
        DeployedModel.id DeployedModel.model DeployedModel.displayName PredictRequest.instances""",
    "test_endpoints.py::test_counts_of_replicas_can_be_changed":
        "MutateDeployedModelRequest.updateMask",
    "test_endpoints.py::test_parameters_and_labels_are_taken": "PredictRequest.parameters",
    "test_endpoints.py::test_scaling_to_zero_has_its_rules": "DedicatedResources.minReplicaCount",
    "test_endpoints.py::test_traffic_is_shared_by_percent":
        "Endpoint.trafficSplit DeployModelRequest.trafficSplit",
    "test_endpoints.py::test_undeploying_lets_requests_under_way_finish": """
        UndeployModelRequest.deployedModelId UndeployModelRequest.trafficSplit""",
    "test_fields.py::test_a_model_server_may_take_so_long_to_start":
        "ModelContainerSpec.deploymentTimeout",
    "test_fields.py::test_a_request_may_take_so_long": "ClientConnectionConfig.inferenceTimeout",
    "test_fields.py::test_entries_are_those_of_the_projects_asked_for": """
        ListLogEntriesRequest.resourceNames ListLogEntriesRequest.filter
        ListLogEntriesRequest.orderBy ListLogEntriesRequest.pageSize
        ListLogEntriesRequest.pageToken""",
    "test_fields.py::test_policies_change_as_their_mask_says":
        "SetIamPolicyRequest.updateMask Policy.etag TestIamPermissionsRequest.permissions",
    "test_fields.py::test_services_are_enabled_together": "BatchEnableServicesRequest.serviceIds",
    "test_fields.py::test_the_parameters_of_a_batch_reach_the_model":
        "BatchPredictionJob.modelParameters",
    "test_fields.py::test_what_a_model_prints_is_logged_where_it_is_asked_for": """
        DeployedModel.disableContainerLogging DeployedModel.enableContainerLogging
        BatchPredictionJob.disableContainerLogging""",
    "test_isolation.py::test_a_job_may_do_what_its_account_may": """
        CustomJobSpec.serviceAccount Binding.members Binding.role
        CreateServiceAccountRequest.accountId""",
    "test_isolation.py::test_a_served_model_sees_what_its_image_has_and_has_an_identity":
        "DeployedModel.serviceAccount BatchPredictionJob.serviceAccount",
    "test_jobs.py::test_a_job_runs_with_the_environment_vertex_gives":
        "ContainerSpec.command ContainerSpec.args EnvVar.name EnvVar.value",
    "test_jobs.py::test_a_python_package_is_installed_and_run": """
        PythonPackageSpec.args PythonPackageSpec.executorImageUri PythonPackageSpec.packageUris
        PythonPackageSpec.pythonModule""",
    "test_jobs.py::test_list_filters_and_delete_waits_for_the_end": "CustomJob.displayName",
    "test_jobs.py::test_preempted_replicas_start_again_as_they_were":
        "Scheduling.restartJobOnWorkerRestart",
    "test_jobs.py::test_replicas_know_their_cluster_and_the_chief_ends_the_job":
        "WorkerPoolSpec.replicaCount",
    "test_jobs.py::test_restarts_have_an_end": "Scheduling.disableRetries",
    "test_jobs.py::test_timeout_stops_a_job": "Scheduling.timeout",
    "test_jobs.py::test_what_cannot_run_fails_and_says_why": "ContainerSpec.imageUri",
    "test_registry.py::test_aliases_are_given_moved_and_removed":
        "MergeVersionAliasesRequest.versionAliases",
    "test_registry.py::test_artifacts_are_copied": "Model.artifactUri",
    "test_registry.py::test_versions_count_up_and_an_alias_means_one_of_them": """
        Model.versionAliases UploadModelRequest.modelId UploadModelRequest.parentModel""",
    "test_rules.py::test_a_mistake_is_refused_with_its_reason": """
        AutomaticResources.maxReplicaCount AutomaticResources.minReplicaCount
        DeployedModel.sharedResources StudySpecParameterSpec.scaleType""",
    "test_rules.py::test_lists_are_filtered_ordered_paged_and_masked":
        "Endpoint.displayName Endpoint.labels",
    "test_endpoints.py::test_a_server_that_listens_elsewhere_is_refused": """
        Model.displayName ModelContainerSpec.args ModelContainerSpec.command
        ModelContainerSpec.healthRoute ModelContainerSpec.imageUri ModelContainerSpec.predictRoute
        Port.containerPort""",
    "test_tuning.py::test_a_failed_trial_is_marked_and_does_not_stop_the_others":
        "HyperparameterTuningJob.maxFailedTrialCount",
    "test_tuning.py::test_no_more_at_once_than_asked_for_and_than_cores": """
        HyperparameterTuningJob.maxTrialCount HyperparameterTuningJob.parallelTrialCount""",
    "test_tuning.py::test_the_best_measurement_counts_when_asked_for":
        "StudySpec.measurementSelectionType StudySpec.algorithm StudySpecMetricSpec.goal",
    "test_tuning.py::test_trials_get_their_values_and_what_they_report_is_measured": """
        StudySpecMetricSpec.metricId StudySpecParameterSpec.parameterId
        StudySpecParameterSpecCategoricalValueSpec.values
        StudySpecParameterSpecDiscreteValueSpec.values
        StudySpecParameterSpecDoubleValueSpec.maxValue
        StudySpecParameterSpecDoubleValueSpec.minValue
        StudySpecParameterSpecIntegerValueSpec.maxValue
        StudySpecParameterSpecIntegerValueSpec.minValue""",
    "test_versions.py::test_a_models_etag_is_its_versions": "Model.etag",
    "test_versions.py::test_an_endpoints_etag_guards_its_changes": "Endpoint.etag",
    "../test_money.py::test_an_endpoint_nobody_asks_stops_and_starts_again":
        "DedicatedResourcesScaleToZeroSpec.idleScaledownPeriod",
}  # fmt: skip
BY = {name: test for test, names in HONOURED.items() for name in names.split()}


# --- the fields there are


def message(schema: dict, schemas: dict) -> tuple[str, dict]:
    """The name of a message, and its schema; "" for what has none."""
    reference = schema.get("$ref", "")
    return honoured_fields.short(reference), schemas[reference] if reference else schema


def below(about: dict) -> tuple[tuple[str, ...], dict]:
    """The steps into lists and maps, and what is in them."""
    for step, key in (("[]", "items"), ("{}", "additionalProperties")):
        if key in about:
            steps, inner = below(about[key])
            return (step, *steps), inner
    return (), about


@dataclass(frozen=True)
class Place:
    """A field of a body: the way to it, its message and name, what becomes of it, and whether the
    way ends there, because nothing is below or because all of it is refused or ignored."""

    way: tuple[str, ...]
    field: str
    kind: str
    last: bool


def places(method: discovery.Method) -> Iterator[Place]:
    """Every field of a method's body, but for messages again within themselves."""
    schemas = method.document["schemas"]

    def walk(schema: dict, way: tuple, seen: tuple, above: str) -> Iterator[Place]:
        name, schema = message(schema, schemas)
        for key, about in schema.get("properties", {}).items():
            if honoured_fields.is_output(about):
                continue
            steps, inner = below(about)
            where, kind = (*way, key, *steps), above or honoured_fields.kind(name, key)
            within, properties = message(inner, schemas)
            leaf = not properties.get("properties") or within in seen
            yield Place(where, f"{name}.{key}", kind, leaf or kind in ("", "assigned"))
            if not leaf and kind in ("honoured", "without effect"):
                yield from walk(inner, where, (*seen, within), "" if kind == "honoured" else kind)

    yield from walk(method.about["request"], (), (), "")


EVERY = {name: list(places(METHODS[name])) for name in WITH_BODY}


def test_each_field_that_is_honoured_has_a_test_and_no_row_is_of_a_field_that_is_not_there():
    found = [place for name in WITH_BODY for place in EVERY[name]]
    assert {p.field for p in found if p.last and p.kind == "honoured"} == set(BY)
    tables = (honoured_fields.HONOURED, honoured_fields.WITHOUT_EFFECT, honoured_fields.ASSIGNED)
    rows = [f"{m}.{f}" for table in tables for m, line in table.items() for f in line.split()]
    assert set(rows) - {place.field for place in found} == set()
    assert len(rows) == len(set(rows))


def test_the_tests_that_are_named_are_there_and_about_the_fields():
    folder, odd = Path(__file__).parent, []
    for test, names in HONOURED.items():
        path, _, function = test.partition("::")
        text = (folder / path).read_text().split("# --- the fields there are")[-1]
        if "register(" in text:  # which deploys models of a container that serves TensorFlow
            text += (folder / "saved_models.py").read_text()
        assert f"\ndef {function}(" in text, test
        for name in names.split() if test != KEPT else ():
            camel = name.partition(".")[2]
            snake = re.sub(r"(?<=[a-z])([A-Z])", lambda m: "_" + m[1].lower(), camel)
            odd += [] if re.search(rf"\b({camel}|{snake})\b", text) else [(test, camel)]
    assert odd == []


# --- sending them

NOWHERE = "gcr.io/nobody/nothing:1"  # what asks for this image fails without a process
MACHINE = {"machineType": "n1-standard-4", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1}
POOL = {"machineSpec": MACHINE, "containerSpec": {"imageUri": NOWHERE, "command": ["true"]}}
PARAMETER = {"parameterId": "x", "doubleValueSpec": {"minValue": 1.0, "maxValue": 2.0}}
ROLE = {"role": "roles/viewer"}
STEP = {"name": "gcr.io/cloud-builders/docker", "args": ["build", "."]}
SOUND = {
    "batchPredictionJobs.create": {
        "displayName": "b", "model": f"{PARENT}/models/fields@1",
        "inputConfig": {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b1b/none"]}},
        "outputConfig": {"predictionsFormat": "jsonl",
                         "gcsDestination": {"outputUriPrefix": "gs://b1b/out"}},
        "dedicatedResources": {"machineSpec": MACHINE},
    },
    "budgets.create": {"displayName": "b", "amount": {"specifiedAmount": {"units": "1"}}},
    "builds.create": {"source": {"storageSource": {"bucket": "b1b", "object": "none.tgz"}},
                      "steps": [STEP]},
    "customJobs.create": {"displayName": "j", "jobSpec": {"workerPoolSpecs": [POOL]}},
    "endpoints.create": {"displayName": "e"},
    "endpoints.deployModel": {"deployedModel": {
        "model": f"{PARENT}/models/fields@1",
        "dedicatedResources": {"machineSpec": MACHINE, "minReplicaCount": 1}}},
    "endpoints.mutateDeployedModel": {
        "deployedModel": {"id": "1", "dedicatedResources": {
            "machineSpec": MACHINE, "minReplicaCount": 1}},
        "updateMask": "dedicatedResources.maxReplicaCount"},
    "hyperparameterTuningJobs.create": {
        "displayName": "t", "maxTrialCount": 1, "parallelTrialCount": 1,
        "studySpec": {"metrics": [{"metricId": "m", "goal": "MINIMIZE"}],
                      "parameters": [PARAMETER]},
        "trialJobSpec": {"workerPoolSpecs": [POOL]},
    },
    "models.upload": {"model": {"displayName": "m", "containerSpec": {
        "imageUri": "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:1"}}},
    "repositories.create": {"format": "DOCKER"},
    "serviceAccounts.create": {"accountId": "fields-account"},
    "repositories.setIamPolicy": {"policy": {"version": 3, "bindings": [ROLE]}},
    "setIamPolicy": {"policy": {"version": 3, "bindings": [ROLE]},
                     "updateMask": "bindings,etag,auditConfigs"},
}  # fmt: skip
# Values where not just any of the type will do, by message and field or by field alone.
VALUES = {
    "AutomaticResources.minReplicaCount": 1,
    "Binding.role": "roles/viewer", "Binding.members": "user:a@b.c",
    "BuildStep.name": STEP["name"], "BuildStep.args": "build",
    "CustomJobSpec.serviceAccount": "a@b.iam.gserviceaccount.com", "Port.containerPort": 8081,
    "DedicatedResources.minReplicaCount": 1, "DeployedModel.id": "1",
    "DeployedModel.model": f"{PARENT}/models/fields@1", "EnvVar.name": "NAME",
    "MachineSpec.machineType": "n1-standard-8", "Model.artifactUri": "gs://b1b/model/",
    "MachineSpec.acceleratorType": "NVIDIA_TESLA_T4", "StudySpec.algorithm": "RANDOM_SEARCH",
    "UploadModelRequest.modelId": lambda: f"m{uuid.uuid4().hex}",
    "UploadModelRequest.parentModel": f"{PARENT}/models/fields",
    "BatchPredictionJob.model": f"{PARENT}/models/fields@1", "Policy.version": 3,
    "BatchPredictionJobInputConfig.instancesFormat": "jsonl", "Policy.etag": "eA==",
    "BatchPredictionJobOutputConfig.predictionsFormat": "jsonl", "GcsSource.uris": "gs://b1b/x",
    "GcsDestination.outputUriPrefix": "gs://b1b/out/", "ModelContainerSpec.healthRoute": "/h",
    "ModelContainerSpec.predictRoute": "/p", "ModelContainerSpec.imageUri": NOWHERE,
    "PredictSchemata.instanceSchemaUri": "gs://b1b/i", "Repository.format": "DOCKER",
    "PredictSchemata.parametersSchemaUri": "gs://b1b/p", "Model.versionAliases": "ab",
    "PredictSchemata.predictionSchemaUri": "gs://b1b/o", "Repository.mode": "STANDARD_REPOSITORY",
    "StudySpecParameterSpec.scaleType": "UNIT_LINEAR_SCALE", "WorkerPoolSpec.replicaCount": "1",
    "StudySpecParameterSpecDoubleValueSpec.minValue": 0.5,
    "StudySpecParameterSpecDoubleValueSpec.maxValue": 9.5,
    "StudySpecParameterSpecIntegerValueSpec.maxValue": "9",
    "PythonPackageSpec.packageUris": "gs://b1b/p.tar.gz", "labels": "low",
    "Endpoint.trafficSplit": 100,
    "AutoscalingMetricSpec.target": 60,
}  # fmt: skip
FORMS = {
    "google-duration": "600s", "google-datetime": "2026-01-02T03:04:05Z", "int64": "7",
    "uint64": "7", "google-fieldmask": "name", "byte": "eA==",
}  # fmt: skip
# Of the fields of one of these only one may be set.
EITHER = [
    {"containerSpec", "pythonPackageSpec"},
    {"doubleValueSpec", "integerValueSpec", "categoricalValueSpec", "discreteValueSpec"},
    {"dedicatedResources", "automaticResources", "sharedResources"},
]


def value_of(about: dict, name: str) -> Any:
    """A value that the field takes, and that is not its default."""
    key = name.partition(".")[2]
    if name in VALUES or key in VALUES:
        value = VALUES[name if name in VALUES else key]
        return value() if callable(value) else value
    if "enum" in about:
        return about["enum"][1]
    kind = about.get("type", "any")
    if kind == "object" and "additionalProperties" not in about:
        return {}
    return FORMS.get(about.get("format"), {
        "boolean": True, "integer": 7, "number": 0.5, "object": {"k": "v"}, "any": {"k": "v"},
    }.get(kind, "x"))  # fmt: skip


def with_field(schema: dict, way: tuple, schemas: dict, name: str, body: Any = None) -> Any:
    """`body` with the field at the end of the way set, and what is required beside it."""
    within, schema = message(schema, schemas)
    if way[:1] == ("[]",):
        first = body[0] if body else None
        return [with_field(schema["items"], way[1:], schemas, name, first)]
    if way[:1] == ("{}",):
        return {"k": with_field(schema["additionalProperties"], way[1:], schemas, name)}
    if not schema.get("properties"):
        return value_of(schema, name)
    made = dict(body or {})
    for group in EITHER:
        if way and way[0] in group:
            made = {key: value for key, value in made.items() if key not in group - {way[0]}}
    for key, about in schema["properties"].items():
        required = about.get("description", "").startswith("Required.") and key not in made
        if way[:1] == (key,):
            made[key] = with_field(about, way[1:], schemas, f"{within}.{key}", made.get(key))
        elif required and not honoured_fields.is_output(about):
            made[key] = with_field(about, below(about)[0], schemas, f"{within}.{key}")
    return made


def at(way: tuple, value: Any) -> Any:
    """What is at the end of a way; None where the way ends before."""
    for word in way:
        if isinstance(value, list) and word == "[]" and value:
            value = value[0]
        elif isinstance(value, dict):
            value = value.get("k" if word == "{}" else word)
        else:
            return None
    return value


def sound(method: discovery.Method) -> dict:
    end = next((end for end in SOUND if method.id.endswith(f".{end}")), "")
    return SOUND.get(end, {})


class Sender:
    """Sends bodies to methods, and finds what is shown of them afterwards."""

    def __init__(self, running: Emulator):
        self.running = running

    def __call__(self, method: discovery.Method, body: dict | None, query: str = "") -> tuple:
        path, unique = method.document["servicePath"] + method.about["path"], uuid.uuid4().hex[:12]
        for name, about in method.about["parameters"].items():
            pattern = about.get("pattern", "^[^/]+$")
            path = re.sub(rf"{{\+?{name}}}", place(pattern, method.id), path)
        if method.id.endswith("repositories.create"):
            query = f"repositoryId=r{unique}&{query}"
        if method.id.endswith("serviceAccounts.create"):
            body = (body or {}) | {"accountId": f"a{unique}"}
        verb = method.about["httpMethod"]
        return self.running.request(verb, f"/{path}?{query}", json_body=body)

    def shown(self, method: discovery.Method, body: dict, query: str = "") -> tuple[int, dict]:
        """The status, and the resource as it is afterwards (of a refusal, what it says)."""
        status, answer = self(method, body, query)
        if status != 200:
            return status, answer
        version = method.document["version"]
        if "done" in answer and method.id.endswith("builds.create"):
            name = answer["metadata"]["build"]["name"]
        elif "done" in answer:
            answer = self.done(version, answer)
            if "error" in answer:
                return 500, answer
            name = answer["response"].get("model") or answer["response"]["name"]
        elif method.id.endswith(("setIamPolicy", "updateBillingInfo", "budgets.create")):
            return status, self._again(method, answer)
        else:
            name = answer["name"]
        return self.running.request("GET", f"/{version}/{name}")

    def done(self, version: str, operation: dict) -> dict:
        """The operation when it has ended."""
        path = f"/{version}/{operation['name']}"
        return until(lambda: (op := self.running.request("GET", path)[1])["done"] and op)

    def act(self, version: str, endpoint: str, verb: str, body: dict) -> dict:
        """The endpoint after an operation on it."""
        path = f"/{version}/{endpoint}"
        status, answer = self.running.request("POST", f"{path}:{verb}", json_body=body)
        assert status == 200, answer
        assert "error" not in self.done(version, answer)
        return self.running.request("GET", path)[1]

    def _again(self, method: discovery.Method, answer: dict) -> dict:
        if method.id.endswith("budgets.create"):
            path = f"/v1/{answer['name'].rpartition('/')[0]}"
            budgets = self.running.request("GET", path)[1]["budgets"]
            return next(b for b in budgets if b["name"] == answer["name"])
        end = method.id.replace(".set", ".get").replace(".updateBilling", ".getBilling")
        getter = METHODS[f"{method.document['version']} {end}"]
        body = {} if getter.about["httpMethod"] == "POST" and "request" in getter.about else None
        return self(getter, body)[1]


def place(pattern: str, method_id: str) -> str:
    """A resource name that a path's pattern takes."""
    ends = {
        "endpoints": "fields", "models": "fields", "repositories": "fields",
        "serviceAccounts": "fields-one@local.iam.gserviceaccount.com",
    }  # fmt: skip
    name = pattern.strip("^$")
    name = name.replace("projects/[^/]+", "projects/local").replace(
        "locations/[^/]+", "locations/us-central1").replace(
        "billingAccounts/[^/]+", "billingAccounts/000000-000000-000000")  # fmt: skip
    for kind, end in ends.items():
        name = name.replace(f"{kind}/[^/]+", f"{kind}/{end}")
    name = name.replace("[^/]+/[^/]+", "projects/local")  # of Service Usage
    return name.replace("services/[^/]+", "services/iam.googleapis.com").replace("[^/]+", "local")


@pytest.fixture(scope="session")
def send(emulator, tmp_path_factory) -> Sender:
    """What the ways of `place` lead to is there."""
    folder = tmp_path_factory.mktemp("model")
    joblib.dump(LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0]), folder / "model.joblib")
    image = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:1"
    register(emulator, folder, "fields", containerSpec={"imageUri": image})
    bucket = {"name": "b1b", "location": "us-central1"}
    storage_answer = emulator.request("POST", "/storage/v1/b?project=local", json_body=bucket)
    assert storage_answer[0] in (200, 409), storage_answer
    emulator.request("POST", "/upload/storage/v1/b/b1b/o?uploadType=media&name=model/m", body=b"x")
    for path, body in {
        f"{PARENT}/endpoints?endpointId=fields": {"displayName": "e"},
        f"{PARENT}/repositories?repositoryId=fields": {"format": "DOCKER"},
        "projects/local/serviceAccounts": {"accountId": "fields-one"},
    }.items():
        assert emulator.request("POST", f"/v1/{path}", json_body=body)[0] in (200, 409)
    return Sender(emulator)


CASES_501 = [
    pytest.param(name, place, id=f"{name}-{place.field}")
    for name in WITH_BODY for place in EVERY[name] if not place.kind
]  # fmt: skip


@pytest.mark.parametrize(("name", "place"), CASES_501)
def test_what_is_not_emulated_is_refused_by_its_name(send, name, place):
    method = METHODS[name]
    schemas, request = method.document["schemas"], method.about["request"]
    status, answer = send(method, with_field(request, place.way, schemas, "", sound(method)))
    within, _, key = place.field.partition(".")
    assert (status, answer["error"]["status"]) == (501, "UNIMPLEMENTED"), answer
    assert f"{key} of {within} is not emulated (501)" in answer["error"]["message"]


SHOWN = ("create", "patch", "upload", "setIamPolicy", "updateBillingInfo")
# A sound request with this field is refused, as Google does it; or the field is no part of what is
# shown, because it is about the request, or decides on it.
UNSHOWN = {
    "endpoints.create Endpoint.trafficSplit": 400, "endpoints.create Endpoint.etag": 200,
    "endpoints.patch Endpoint.etag": 409,
    "models.patch Model.etag": 409, "models.upload Model.etag": 200,
    "setIamPolicy Policy.etag": 409, "builds.create BuildStep.args": 501,
}  # fmt: skip


@pytest.mark.parametrize("name", [n for n in WITH_BODY if n.endswith(SHOWN)])
def test_what_is_sent_is_kept(send, name):
    method, lost = METHODS[name], {}
    schemas, request = method.document["schemas"], method.about["request"]
    for place in EVERY[name]:
        way, field = place.way, place.field
        if not place.kind or not place.last:
            continue
        body = with_field(request, way, schemas, "", sound(method))
        query = f"updateMask={way[0]}" if name.endswith("patch") else ""
        status, resource = send.shown(method, body, query)
        inner = way[1:] if honoured_fields.short(request["$ref"]).endswith("Request") else way
        short = next((v for k, v in UNSHOWN.items()
                      if field == k.split()[1] and name.endswith(k.split()[0])), None)  # fmt: skip
        if name.endswith("patch") and status in (400, 501):
            about = resource["error"]["message"]
            if not re.search("can't be updated|an update of|DeployedModel.* do not exist", about):
                lost[way] = about
        elif place.kind == "assigned":
            if status != 200 or at(inner, resource) == at(way, body):
                lost[way] = status, resource
        elif short or field.partition(".")[0].endswith("Request"):
            if status != (short or 200):
                lost[way] = status, resource.get("error", {}).get("message")
        elif status != 200 or at(inner, resource) != at(way, body):
            lost[way] = status, at(way, body), resource.get("error", {}).get("message", resource)
    assert lost == {}


def together(method: discovery.Method, chosen: Callable[[str], bool]) -> tuple[set, dict]:
    """The ways to all the fields that are chosen, and a body with them."""
    schemas, body, ways = method.document["schemas"], sound(method), set()
    for place in places(method):
        request = place.field.partition(".")[0].endswith("Request")
        if place.kind and place.last and not request and chosen("/".join(place.way)):
            ways.add(place.way)
            body = with_field(method.about["request"], place.way, schemas, "", body)
    return ways, body


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
@pytest.mark.parametrize("verb", ["deployModel", "mutateDeployedModel"])
def test_what_a_deployment_is_given_is_kept(send, version, verb):
    """All fields at once: each deployment starts a process."""
    about, zero = {"displayName": "e", "dedicatedEndpointEnabled": True}, version == "v1beta1"
    made, deploy, mutate = (
        METHODS[f"{version} aiplatform.projects.locations.endpoints.{name}"]
        for name in ("create", "deployModel", "mutateDeployedModel")
    )
    endpoint = f"{PARENT}/endpoints/{version.lower()}-{verb.lower()}"
    assert send(made, about, f"endpointId={endpoint.rpartition('/')[2]}")[0] == 200
    counts = {"minReplicaCount": 0, "initialReplicaCount": 2} if zero else {"minReplicaCount": 1}
    without = "automaticResources|sharedResources" + ("" if zero else "|initialReplicaCount")
    ways, body = together(deploy, lambda way: not re.search(without, way))
    body["deployedModel"]["dedicatedResources"] |= counts
    if verb == "mutateDeployedModel":
        plain = sound(deploy)
        plain["deployedModel"]["id"] = "1"
        send.act(version, endpoint, "deployModel", plain)
        named = "|".join(COUNTS) if zero else "|".join(COUNTS - {"initialReplicaCount"})
        ways, body = together(mutate, lambda way: re.search(f"dedicatedResources/({named})", way))
        pool = body["deployedModel"]["dedicatedResources"]
        pool |= counts
        changed = [f"dedicatedResources.{key}" for key in sorted(COUNTS & set(pool))]
        flag = "enableContainerLogging" if zero else "disableContainerLogging"
        body["deployedModel"][flag] = True
        body["updateMask"] = ",".join([*changed, flag])
    shown = send.act(version, endpoint, verb, body)["deployedModels"][0]
    shown["model"] += f"@{shown['modelVersionId']}"
    assert len(ways) > (40 if verb == "deployModel" else 4)
    assert {way for way in ways if at(way[1:], shown) != at(way, body)} == set()


# --- parameters of queries

LISTS = "test_rules.py::test_lists_are_filtered_ordered_paged_and_masked"
HONOURED_QUERY = {
    LISTS: "filter orderBy pageSize pageToken readMask",
    "test_builds.py::test_a_build_is_found_by_either_path": "parent name",
    "test_builds.py::test_a_tag_that_is_immutable_is_given_once": "repositoryId",
    "test_fields.py::test_budgets_are_those_of_the_project_asked_for": "scope",
    "test_fields.py::test_services_are_enabled_together": "names",
    "test_fields.py::test_answers_have_the_fields_asked_for": "fields",
    "test_metrics.py::test_answers_are_counted_by_status_and_minute":
        "interval.startTime interval.endTime view",
    "test_rules.py::test_endpoint_ids": "endpointId",
    "test_registry.py::test_patch_changes_the_model_or_the_version": "updateMask",
    "test_sdk_storage.py::test_large_files_go_and_come_in_pieces": "alt",
}  # fmt: skip
BY_QUERY = {name: test for test, names in HONOURED_QUERY.items() for name in names.split()}


def queried(method: discovery.Method) -> dict[str, dict]:
    own = {n: a for n, a in method.about["parameters"].items() if a["location"] == "query"}
    return own | method.document["parameters"]


def test_each_parameter_that_is_honoured_has_a_test():
    found = {
        (key, honoured_fields.query_kind(method.id, key))
        for method in METHODS.values() for key in queried(method)
    }  # fmt: skip
    assert {key for key, kind in found if kind == "honoured"} == set(BY_QUERY)
    tables = (honoured_fields.QUERY_HONOURED, honoured_fields.QUERY_WITHOUT_EFFECT)
    rows = {name for table in tables for line in table.values() for name in line.split()}
    assert rows - {key for key, _ in found} == set()


@pytest.mark.parametrize("name", [n for n in METHODS if "operations." not in n])
def test_parameters_of_queries_are_refused_or_have_no_effect(send, name):
    method = METHODS[name]
    body = {} if "request" in method.about and method.about["httpMethod"] != "GET" else None
    for key, about in queried(method).items():
        value = value_of({k: v for k, v in about.items() if k != "repeated"}, f".{key}")
        query = f"{key}={str(value).lower() if value is True else value}"
        kind = honoured_fields.query_kind(method.id, key)
        if not kind:
            status, answer = send(method, body, query)
            assert (status, key in answer["error"]["message"]) == (501, True), answer
        elif kind == "without effect" and method.about["httpMethod"] == "GET":
            # what a test before has left may change meanwhile
            until(lambda query=query: send(method, body, query) == send(method, body))


def test_docs_fidelity_shows_the_tables():
    page = (Path(__file__).parents[2] / "docs" / "fidelity.md").read_text()
    section = page.split("\n## Fields\n")[1].split("\n## ")[0]
    shown = [
        {(name, field) for name, line in re.findall(r"(?m)^\| `([^`]+)` \| (.+) \|$", table)
         for field in re.findall(r"`([^`]+)`", line)}
        for table in section.split("|---|---|")[1:]
    ]  # fmt: skip
    refused = {tuple(p.field.split(".")) for places in EVERY.values() for p in places if not p.kind}
    queries = {
        ("*" if key in method.document["parameters"] else method.id, key)
        for method in METHODS.values() for key in queried(method)
        if not honoured_fields.query_kind(method.id, key)
    }  # fmt: skip

    def rows(table: dict[str, str]) -> set[tuple[str, str]]:
        return {(name, field) for name, line in table.items() for field in line.split()}

    tables = [
        rows(honoured_fields.WITHOUT_EFFECT),
        refused,
        rows(honoured_fields.QUERY_WITHOUT_EFFECT),
        queries,
    ]
    assert shown == tables
    assigned = re.findall(r"`([A-Z]\w+)\.(\w+)`", section.split("whatever a request says")[1])
    assert set(assigned) == rows(honoured_fields.ASSIGNED)


def test_a_field_at_its_default_counts_as_not_sent_and_an_unknown_one_is_refused(send, monkeypatch):
    method = METHODS["v1 aiplatform.projects.locations.endpoints.create"]
    unset = {
        "enablePrivateServiceConnect": False, "network": "", "gdcConfig": None,
        "predictRequestResponseLoggingConfig": {"enabled": False, "samplingRate": 0},
    }  # fmt: skip
    assert send(method, SOUND["endpoints.create"] | unset)[0] == 200
    monkeypatch.delitem(honoured_fields.HONOURED, "Port")  # as if a newer document had brought it
    model = {"displayName": "m", "containerSpec": {"ports": [{"containerPort": 1}]}}
    upload = METHODS["v1 aiplatform.projects.locations.models.upload"]
    with pytest.raises(calls.ApiError, match="containerPort of Port is not emulated"):
        honoured_fields.check_body(upload, {"model": model})


# --- what is honoured and shown nowhere else


def endpoint(running: Emulator, **about) -> str:
    path = f"/v1/{PARENT}/endpoints?endpointId=e{uuid.uuid4().hex[:12]}"
    status, answer = running.request("POST", path, json_body={"displayName": "e"} | about)
    assert status == 200, answer
    return answer["response"]["name"]


def deployed(send: Sender, name: str, deployed_id: str, version: str = "v1", **about) -> None:
    pool = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}
    model = {"model": f"{PARENT}/models/fields@1", "dedicatedResources": pool, "id": deployed_id}
    body = {"deployedModel": model | about, "trafficSplit": {"0": 100}}
    send.act(version, name, "deployModel", body)


def entries(running: Emulator, *projects: str, **about) -> dict:
    names = [f"projects/{project}" for project in projects]
    body = {"resourceNames": names} | about
    status, answer = running.request("POST", "/v2/entries:list", json_body=body)
    assert status == 200, answer
    return answer


def test_what_a_model_prints_is_logged_where_it_is_asked_for(send):
    """v1 logs unless disableContainerLogging says no, v1beta1 where enableContainerLogging says
    yes; batch predictions as v1."""
    running, name = send.running, endpoint(send.running)
    deployed(send, name, "1", disableContainerLogging=True)
    for number, about in ((2, {}), (3, {"enableContainerLogging": True})):
        send.act("v1", name, "undeployModel", {"deployedModelId": str(number - 1)})
        deployed(send, name, str(number), "v1beta1", **about)
    chosen = f'resource.labels.endpoint_id="{name.rpartition("/")[2]}"'

    def logged() -> set[str]:
        found = entries(running, "local", filter=chosen).get("entries", [])
        return {entry["resource"]["labels"]["task_name"] for entry in found}

    until(logged)
    assert logged() == {"3"}
    running.request("POST", "/upload/storage/v1/b/b1b/o?uploadType=media&name=rows.jsonl",
                    body=b"[0.5]\n")  # fmt: skip
    given = {"instancesFormat": "jsonl", "gcsSource": {"uris": ["gs://b1b/rows.jsonl"]}}
    body, numbers = SOUND["batchPredictionJobs.create"] | {"inputConfig": given}, []
    for about in ({"disableContainerLogging": True}, {}):
        path = f"/v1/{PARENT}/batchPredictionJobs"
        job = running.request("POST", path, json_body=body | about)[1]["name"]
        ended = until(lambda job=job: (j := running.request("GET", f"/v1/{job}")[1]).get(
            "endTime") and j)  # fmt: skip
        assert ended["state"] == "JOB_STATE_SUCCEEDED", ended
        numbers.append(job.rpartition("/")[2])
    chosen = [f'resource.labels.endpoint_id="{number}"' for number in numbers]
    until(lambda: "entries" in entries(running, "local", filter=chosen[1]))
    assert entries(running, "local", filter=chosen[0]) == {}


def test_a_request_may_take_so_long(send):
    """inferenceTimeout of the endpoint's clientConnectionConfig."""
    name = endpoint(send.running, clientConnectionConfig={"inferenceTimeout": "0.000001s"})
    deployed(send, name, "1")
    path = f"/v1/{name}:predict"
    status, answer = send.running.request("POST", path, json_body={"instances": [[0.5]]})
    assert (status, "did not answer in 1e-06 s" in answer["error"]["message"]) == (504, True)


def test_a_model_server_may_take_so_long_to_start(send):
    """deploymentTimeout of the model's container."""
    spec = SOUND["models.upload"]["model"]["containerSpec"] | {"deploymentTimeout": "0.001s"}
    model = {"displayName": "hasty", "containerSpec": spec, "artifactUri": "gs://b1b/model/"}
    path = f"/v1/{PARENT}/models:upload"
    _, operation = send.running.request("POST", path, json_body={"model": model})
    uploaded = send.done("v1", operation)["response"]["model"]
    pool = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}
    body = {"deployedModel": {"model": uploaded, "dedicatedResources": pool}}
    path = f"/v1/{endpoint(send.running)}:deployModel"
    _, operation = send.running.request("POST", path, json_body=body)
    assert "did not answer" in send.done("v1", operation)["error"]["message"]


def test_entries_are_those_of_the_projects_asked_for(send):
    """resourceNames; a page of them (pageSize, pageToken), and their order (orderBy)."""
    ids, running = {}, send.running
    for project in ("fields-one", "fields-two"):
        path = f"/v1/projects/{project}/locations/us-central1/builds"
        name = running.request("POST", path, json_body=SOUND["builds.create"])[1]["name"]
        send.done("v1", {"name": name})
        ids[project] = running.request("GET", path)[1]["builds"][0]["id"]
    found = entries(running, "fields-one")["entries"]
    assert {entry["resource"]["labels"]["build_id"] for entry in found} == {ids["fields-one"]}
    assert found[-1]["textPayload"] == "ERROR: Source gs://b1b/none.tgz not found."
    both = entries(running, *ids, orderBy="timestamp desc")["entries"]
    assert [e["resource"]["labels"]["build_id"] for e in both] == list(ids.values())[::-1]
    first = entries(running, *ids, pageSize=1)
    rest = entries(running, *ids, pageSize=1, pageToken=first["nextPageToken"])
    assert first["entries"] + rest["entries"] == both[::-1]
    assert "nextPageToken" not in rest
    body = {"resourceNames": ["folders/1"]}
    assert running.request("POST", "/v2/entries:list", json_body=body)[0] == 400


def test_policies_change_as_their_mask_says(send):
    account = "projects/local/serviceAccounts/fields-one@local.iam.gserviceaccount.com"

    def changed(policy: dict, **about) -> tuple[int, dict]:
        path = f"/v1/{account}:setIamPolicy"
        return send.running.request("POST", path, json_body={"policy": policy} | about)

    audit = [{"service": "storage.googleapis.com"}]
    binding = {"role": "roles/viewer", "members": ["user:a@b.c"]}
    policy = {"version": 3, "auditConfigs": audit, "bindings": [binding]}
    assert changed(policy, updateMask="bindings,etag,auditConfigs")[1]["auditConfigs"] == audit
    status, kept = changed({"version": 1, "bindings": []})  # without a mask: bindings and etag
    assert (status, kept["auditConfigs"], kept["bindings"]) == (200, audit, [])
    assert changed({"version": 1, "etag": "b2xk"})[0] == 409
    condition = {"condition": {"expression": "true", "title": "always"}}
    status, answer = changed({"version": 1, "bindings": [binding | condition]})
    assert (status, "must have version 3" in answer["error"]["message"]) == (400, True)
    asked = {"permissions": ["iam.serviceAccounts.actAs"]}
    path = f"/v1/{account}:testIamPermissions"
    assert send.running.request("POST", path, json_body=asked) == (200, asked)


def test_services_are_enabled_together(send):
    names = [f"projects/enabled/services/{n}.googleapis.com" for n in ("iam", "storage", "logging")]
    body = {"serviceIds": [name.rpartition("/")[2] for name in names[:2]]}
    path = "/v1/projects/enabled/services:batchEnable"
    assert send.running.request("POST", path, json_body=body)[1]["done"] is True
    asked = "&".join(f"names={name}" for name in names)
    path = f"/v1/projects/enabled/services:batchGet?{asked}"
    found = send.running.request("GET", path)[1]["services"]
    assert [one["state"] for one in found] == ["ENABLED", "ENABLED", "DISABLED"]


def test_budgets_are_those_of_the_project_asked_for(send):
    path = "/v1/billingAccounts/111111-111111-111111/budgets"
    for project in ("projects/1", "projects/2"):
        body = SOUND["budgets.create"] | {"budgetFilter": {"projects": [project]}}
        assert send.running.request("POST", path, json_body=body)[0] == 200
    (found,) = send.running.request("GET", f"{path}?scope=projects/2")[1]["budgets"]
    assert found["budgetFilter"]["projects"] == ["projects/2"]


def test_answers_have_the_fields_asked_for(send):
    path = f"/v1/{PARENT}/models?filter=model%3Dfields&fields=models(name,containerSpec/imageUri)"
    (model,) = send.running.request("GET", path)[1]["models"]
    uri = "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:1"
    assert model == {"name": f"{PARENT}/models/fields", "containerSpec": {"imageUri": uri}}
    assert send.running.request("GET", path.replace("(", "(("))[0] == 400


def test_the_parameters_of_a_batch_reach_the_model(tmp_path):
    """modelParameters stand beside the instances of every request."""
    asked = []

    async def post(body: bytes) -> Answer:
        asked.append(json.loads(body))
        return Answer(200, "application/json", b'{"predictions": [1]}')

    (tmp_path / "rows.jsonl").write_text("[1]\n")
    job = {
        "inputConfig": {"instancesFormat": "jsonl"}, "modelParameters": {"top": 3},
        "_files": [[str(tmp_path / "rows.jsonl")]], "_total": 1,
    }  # fmt: skip
    asyncio.run(batch_rows.score(job, tmp_path / "out", post, lambda **fields: None))
    assert asked == [{"instances": [[1]], "parameters": {"top": 3}}]
