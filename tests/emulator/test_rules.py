"""What Google refuses is refused: one sound request a method, and what a mistake in it is told."""

import copy
import itertools
import json
import re
import uuid

import pytest

PARENT = "projects/local/locations/us-central1"
MACHINE = {"machineType": "n1-standard-4"}
TASK = {"imageUri": "python:3.11", "command": ["true"]}
POOL = {"machineSpec": MACHINE, "replicaCount": "1", "containerSpec": TASK}
SOUND = {
    "customJobs": {"displayName": "j", "jobSpec": {"workerPoolSpecs": [POOL]}},
    "hyperparameterTuningJobs": {
        "displayName": "t",
        "maxTrialCount": 1,
        "parallelTrialCount": 1,
        "studySpec": {
            "metrics": [{"metricId": "m", "goal": "MINIMIZE"}],
            "parameters": [{"parameterId": "x", "doubleValueSpec": {"minValue": 1, "maxValue": 2}}],
        },
        "trialJobSpec": {"workerPoolSpecs": [POOL]},
    },
    "models:upload": {
        "model": {
            "displayName": "m",
            "containerSpec": {"imageUri": "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:1"},
        }
    },
    "endpoints": {"displayName": "e"},
    "endpoints/1:deployModel": {
        "deployedModel": {
            "model": f"{PARENT}/models/1@1",
            "dedicatedResources": {"machineSpec": MACHINE, "minReplicaCount": 1},
        }
    },
}
STUDY, GIVEN = "studySpec", "studySpec.parameters.0"
LOG = {"scaleType": "UNIT_LOG_SCALE"}
POOLS, SPEC = "jobSpec.workerPoolSpecs", "model.containerSpec"
DEPLOYED, RESOURCES = "deployedModel", "deployedModel.dedicatedResources"
T4 = {"acceleratorType": "NVIDIA_TESLA_T4"}
MANY = [{"name": f"N{i}", "value": "x"} for i in range(101)]
REFUSED = {
    "customJobs": [
        ("displayName", "x" * 129, "128 characters"),
        ("displayName", ["x"], "TYPE_STRING"),
        ("display_nam", "x", 'Unknown name "display_nam"'),
        ("displayName", "", "display_name; Message: Required"),
        ("jobSpec", None, "job_spec; Message: Required"),
        ("labels", {"1a": "x"}, "Label keys"),
        ("labels", {"a" * 64: "x"}, "Label keys"),
        ("labels", {"a": "b" * 64}, "Label value"),
        ("labels", {"a": 1}, "TYPE_STRING"),
        ("labels", ["a"], "message"),
        (POOLS, [], "worker_pool_specs; Message: Required"),
        (POOLS, [POOL] * 5, "At most 4"),
        (POOLS, {"a": POOL}, "repeated field"),
        (f"{POOLS}.0.replicaCount", "0", "exactly one replica"),
        (f"{POOLS}.0.replicaCount", "-1", "exactly one replica"),
        (f"{POOLS}.0.replicaCount", 1.5, "TYPE_INT64"),
        (f"{POOLS}.0.replicaCount", "1e3", "TYPE_INT64"),
        (f"{POOLS}.0.replicaCount", str(2**63), "TYPE_INT64"),
        (f"{POOLS}.0.replicaCount", True, "TYPE_INT64"),
        (f"{POOLS}.0.machineSpec.machineType", "large", "not supported"),
        (f"{POOLS}.0.machineSpec.machineType", "", "machine_type"),
        (f"{POOLS}.0.machineSpec", MACHINE | T4, "go together"),
        (f"{POOLS}.0.machineSpec", MACHINE | {"acceleratorCount": 1}, "go together"),
        (f"{POOLS}.0.machineSpec.acceleratorType", "NVIDIA_T4", "TYPE_ENUM"),
        (f"{POOLS}.0.machineSpec.acceleratorType", 99, "TYPE_ENUM"),
        (f"{POOLS}.0.machineSpec.acceleratorCount", "one", "TYPE_INT32"),
        (f"{POOLS}.0.machineSpec.acceleratorCount", 2**31, "TYPE_INT32"),
        (f"{POOLS}.0.containerSpec", None, "Exactly one of"),
        (f"{POOLS}.0.containerSpec.imageUri", "", "image_uri"),
        (f"{POOLS}.0.containerSpec.args", "--a", "repeated field"),
        (f"{POOLS}.0.containerSpec.env", [{"name": "1A", "value": "x"}], "C identifier"),
        (f"{POOLS}.0.containerSpec.env", [{"value": "x"}], "name; Message: Required"),
        (f"{POOLS}.0.containerSpec.env", [{"name": "A", "value": "1"}] * 2, "unique"),
        (f"{POOLS}.0.containerSpec.env", MANY, "limit is 100"),
        ("jobSpec.scheduling", {"timeout": "-5s"}, "negative"),
        ("jobSpec.scheduling", {"timeout": "1 h"}, "Duration|duration"),
        ("jobSpec.scheduling", {"strategy": "SPOTTY"}, "TYPE_ENUM"),
        ("jobSpec.scheduling", {"restartJobOnWorkerRestart": "yes"}, "TYPE_BOOL"),
        ("jobSpec.baseOutputDirectory", {"outputUriPrefix": "s3://b/x"}, "gs://BUCKET"),
        ("jobSpec.baseOutputDirectory", {"outputUriPrefix": "gs://"}, "gs://BUCKET"),
        ("jobSpec.baseOutputDirectory", {}, "output_uri_prefix; Message: Required"),
    ],
    "hyperparameterTuningJobs": [
        ("displayName", None, "display_name; Message: Required"),
        ("maxTrialCount", 0, "at least 1"),
        ("parallelTrialCount", None, "arallel"),
        ("maxFailedTrialCount", -1, "negative"),
        ("trialJobSpec", None, "trial_job_spec; Message: Required"),
        ("trialJobSpec.workerPoolSpecs.0.replicaCount", "2", "exactly one replica"),
        (STUDY, None, "study_spec; Message: Required"),
        (f"{STUDY}.metrics", [], "metrics; Message: Required"),
        (
            f"{STUDY}.metrics",
            [{"metricId": "a", "goal": "MAXIMIZE"}] * 2,
            "several metrics is not emulated",
        ),
        (f"{STUDY}.metrics.0.goal", "SMALL", "TYPE_ENUM"),
        (f"{STUDY}.metrics.0.goal", None, "goal; Message: Required"),
        (f"{STUDY}.metrics.0.metricId", "my loss", "whitespaces"),
        (f"{STUDY}.algorithm", "GRID_SEARCH", "Grid search takes INTEGER"),
        (f"{STUDY}.parameters", [], "parameters; Message: Required"),
        (f"{GIVEN}.parameterId", "a b", "whitespaces"),
        (f"{GIVEN}.doubleValueSpec", None, "Exactly one of the value specs"),
        (f"{GIVEN}.doubleValueSpec", {"minValue": 2, "maxValue": 1}, "must not exceed max_value 1"),
        (f"{GIVEN}.doubleValueSpec.minValue", "low", "TYPE_DOUBLE"),
        (f"{GIVEN}.integerValueSpec", {"minValue": "1", "maxValue": "2"}, "Exactly one of"),
        (
            GIVEN,
            LOG | {"parameterId": "x", "doubleValueSpec": {"minValue": 0, "maxValue": 1}},
            "strictly positive",
        ),
        (GIVEN, {"parameterId": "x", "discreteValueSpec": {"values": [2, 1]}}, "increasing"),
        (GIVEN, {"parameterId": "x", "categoricalValueSpec": {"values": []}}, "values"),
        (GIVEN, LOG | {"parameterId": "x", "categoricalValueSpec": {"values": ["a"]}}, "positive"),
        (f"{GIVEN}.scaleType", "UNIT_REVERSE_LOG_SCALE", "not emulated"),
    ],
    "models:upload": [
        ("modelId", "1model", "no number or hyphen first"),
        ("modelId", "-model", "no number or hyphen first"),
        ("modelId", "m" * 64, "63 characters"),
        ("modelId", "Model", "a-z0-9"),
        ("parentModel", "models/1", "is not a resource name"),
        ("model", None, "model; Message: Required"),
        ("model.displayName", "x" * 129, "128 characters"),
        ("model.labels", {"A": "x"}, "Label keys"),
        ("model.versionAliases", ["1"], "Invalid alias"),
        ("model.versionAliases", ["Ab"], "Invalid alias"),
        ("model.versionAliases", ["a" * 129], "Invalid alias"),
        ("model.versionAliases", [f"a{i}" for i in range(51)], "At most 50"),
        ("model.artifactUri", "/tmp/model", "gs://"),
        ("model.artifactUri", "gs://", "gs://"),
        ("model.predictSchemata", {"instanceSchemaUri": "/tmp/x"}, "gs://"),
        (f"{SPEC}.imageUri", "tensorflow/serving:2.20.0", "Artifact Registry"),
        (f"{SPEC}.ports", [{"containerPort": 0}], "between 1 and 65535"),
        (f"{SPEC}.ports", [{"containerPort": 70000}], "between 1 and 65535"),
        (f"{SPEC}.predictRoute", "predict", "starts with /"),
        (f"{SPEC}.env", [{"name": "a b", "value": "x"}], "C identifier"),
    ],
    "endpoints": [
        ("displayName", None, "display_name; Message: Required"),
        ("displayName", "x" * 129, "128 characters"),
        ("trafficSplit", {"1": 100}, "Must be empty"),
        ("trafficSplit", {"1": "all"}, "TYPE_INT32"),
        ("dedicatedEndpointEnabled", 1, "TYPE_BOOL"),
        ("encryptionSpec", {"kmsKey": "x"}, 'Unknown name "kmsKey"'),
    ],
    "endpoints/1:deployModel": [
        (DEPLOYED, None, "deployed_model; Message: Required"),
        (f"{DEPLOYED}.model", None, "deployed_model.model"),
        (f"{DEPLOYED}.model", "1", "is not a resource name"),
        (f"{DEPLOYED}.model", f"{PARENT}/endpoints/1", "is not a resource name"),
        (f"{DEPLOYED}.id", "a1", r"\[0-9\]"),
        (f"{DEPLOYED}.id", "12345678901", "1-10"),
        (f"{DEPLOYED}.automaticResources", {"minReplicaCount": 1}, "Exactly one kind"),
        (f"{DEPLOYED}.automaticResources", {"maxReplicaCount": 1}, "Exactly one kind"),
        (f"{DEPLOYED}.sharedResources", "projects/p/locations/l", "Exactly one kind"),
        (RESOURCES, None, "Exactly one kind"),
        (
            DEPLOYED,
            {"model": f"{PARENT}/models/1", "automaticResources": {}},
            "dedicated_resources",
        ),
        (f"{RESOURCES}.minReplicaCount", 0, "at least 1"),
        (f"{RESOURCES}.minReplicaCount", "two", "TYPE_INT32"),
        (f"{RESOURCES}.maxReplicaCount", -1, "at least min_replica_count"),
        (f"{RESOURCES}.machineSpec", None, "machine_spec; Message: Required"),
        (f"{RESOURCES}.machineSpec.machineType", "large", "not supported"),
        (f"{RESOURCES}.autoscalingMetricSpecs", [{"metricName": "m", "target": 101}], "1 and 100"),
        ("trafficSplit", {"0": 99}, "add up to 100"),
        ("trafficSplit", {"0": 50, "7": 51}, "add up to 100"),
        ("trafficSplit", {"0": 101, "7": -1}, "add up to 100"),
        ("trafficSplit", {"0": 33.5, "7": 66.5}, "TYPE_INT32"),
    ],
}


def changed(body: dict, place: str, value) -> dict:
    """A copy with one value replaced, or taken out when it is None."""
    body = copy.deepcopy(body)
    *path, last = [int(word) if word.isdecimal() else word for word in place.split(".")]
    inner = body
    for word in path:
        inner = inner[word]
    if value is None:
        inner.pop(last, None)
    else:
        inner[last] = value
    return body


CASES = [
    pytest.param(method, place, value, said, id=f"{method}-{place}-{i}")
    for method, cases in REFUSED.items()
    for i, (place, value, said) in enumerate(cases)
]


@pytest.mark.parametrize(("method", "place", "value", "said"), CASES)
def test_a_mistake_is_refused_with_its_reason(emulator, method, place, value, said):
    body = changed(SOUND[method], place, value)
    status, answer = emulator.request("POST", f"/v1/{PARENT}/{method}", json_body=body)
    kind = (501, "UNIMPLEMENTED") if "not emulated" in said else (400, "INVALID_ARGUMENT")
    assert (status, answer["error"]["status"]) == kind
    assert re.search(said, answer["error"]["message"]), answer["error"]["message"]


@pytest.mark.parametrize("method", SOUND)
def test_without_the_mistake_it_is_accepted(emulator, method):
    """All but the deployment, whose endpoint and model are not there."""
    status, answer = emulator.request("POST", f"/v1/{PARENT}/{method}", json_body=SOUND[method])
    assert status == (404 if "deploy" in method else 200), answer


@pytest.mark.parametrize(
    ("chosen", "sound"),
    {"e": True, "my-endpoint-1": True, "123456789": True, "e" * 63: True, "e" * 64: False,
     "1234567890": False, "012": False, "1e": False, "e-": False, "E": False, "e_e": False}.items(),
)  # fmt: skip
def test_endpoint_ids(emulator, chosen, sound):
    path = f"/v1/{PARENT}/endpoints?endpointId={chosen}"
    status, answer = emulator.request("POST", path, json_body=SOUND["endpoints"])
    assert status == (200 if sound else 400), answer
    if sound:
        assert emulator.request("DELETE", f"/v1/{PARENT}/endpoints/{chosen}")[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "projects/local/locations/us-central9/customJobs",
        "projects/local/locations/global/customJobs",
        "projects/Local/locations/us-central1/customJobs",
        "projects/local/locations/us-central1/customJobs?filter=nonsense%20%3E",
        "projects/local/locations/us-central1/models?orderBy=displayName%20sideways",
        "projects/local/locations/us-central1/models?pageSize=-1",
        "projects/local/locations/us-central1/models?pageToken=x",
        "projects/local/locations/us-central1/models?readMask=a%20b",
        "projects/local/locations/us-central1/models?page_sise=1",
    ],
)
def test_places_and_queries_that_are_none(emulator, path):
    status, answer = emulator.request("GET", f"/v1/{path}")
    assert (status, answer["error"]["status"]) == (400, "INVALID_ARGUMENT")


def test_lists_are_filtered_ordered_paged_and_masked(emulator):
    for name, phase in zip(("b", "c", "a"), ("x", "y", "x"), strict=True):
        body = {"displayName": f"list-{name}", "labels": {"list": phase}, "description": "d"}
        emulator.request("POST", f"/v1/{PARENT}/endpoints?endpointId=list-{name}", json_body=body)

    def pages(query: str) -> list[list[dict]]:
        found, token = [], ""
        for _ in range(9):
            path = f"/v1/{PARENT}/endpoints?{query}&pageToken={token}"
            _, answer = emulator.request("GET", path)
            found.append(answer.get("endpoints", []))
            token = answer.get("nextPageToken", "")
            if not token:
                return found
        raise AssertionError("no end of pages")

    def names(query: str) -> list[str]:
        return [e["name"][-1] for e in itertools.chain(*pages(f"filter=labels:list{query}"))]

    assert names("&orderBy=displayName") == ["a", "b", "c"]
    assert names("&orderBy=display_name+desc") == ["c", "b", "a"]
    assert names("&orderBy=createTime&pageSize=1") == ["b", "c", "a"]
    assert names("+AND+labels.list%3Dx&order_by=display_name") == ["a", "b"]
    assert names("+AND+endpoint%3Dlist-c") == ["c"]
    sizes = [len(page) for page in pages("filter=labels:list&pageSize=2")]
    assert sizes == [2, 1]
    (masked,) = pages('filter=displayName%3D"list-a"&readMask=displayName,labels.list')[0]
    assert masked == {"displayName": "list-a", "labels": {"list": "x"}}
    assert json.dumps(pages("filter=labels.list%3Dnone")) == "[[]]"
    for name in "abc":
        emulator.request("DELETE", f"/v1/{PARENT}/endpoints/list-{name}")


@pytest.mark.parametrize("more", ["", "&orderBy=displayName"])
def test_what_is_deleted_or_made_between_two_pages_hides_nothing(emulator, more):
    lists, made = f"/v1/{PARENT}/endpoints?filter=labels.paged%3D{uuid.uuid4().hex}{more}", []
    label = {"paged": lists.partition("%3D")[2].partition("&")[0]}

    def make(name: str) -> str:
        body = {"displayName": name, "labels": label}
        made.append(f"{label['paged'][:8]}-{name}")
        return emulator.request("POST", f"/v1/{PARENT}/endpoints?endpointId=p{made[-1]}",
                                json_body=body)[1]["name"]  # fmt: skip

    def page(token: str, size: int = 2) -> tuple[list[str], str]:
        asked = f"{lists}&pageSize={size}&pageToken={token}"
        status, answer = emulator.request("GET", asked)
        assert status == 200, answer
        return [e["name"] for e in answer.get("endpoints", [])], answer.get("nextPageToken", "")

    for number in range(6):
        make(f"n{number}")
    first, token = page("")
    make("a-new-one")  # the first of both orders
    second, _ = page(token)
    assert not {*first} & {*second}
    deleted, token = 0, ""
    while token or not deleted:
        shown, token = page(token, 3)
        for name in shown:
            emulator.request("DELETE", f"/v1/{name}")
        deleted += len(shown)
    assert deleted == 7
    assert page("") == ([], "")
    for wrong in (f"{token}99", "NQ==", "W10="):
        assert emulator.request("GET", f"{lists}&pageToken={wrong}")[0] == 400
