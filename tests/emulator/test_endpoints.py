"""Endpoints through HTTP: deploys, shares of the traffic, predictions, kills."""

import collections
import concurrent.futures
import json
import os
import signal
import uuid

import psutil
import pytest

from helpers.cloud import buckets, images
from helpers.errors import CloudError
from tests.emulator.conftest import until
from tests.emulator.saved_models import ROWS, register, saved_models  # noqa: F401

pytestmark = pytest.mark.long

ROW = {"a": 1, "b": 1}  # model `one` says 5, model `two` 50
MACHINE = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}


def serving_image(running) -> str:
    buckets.create_bucket(running.session)
    dockerfile = b"FROM tensorflow/serving:2.20.0\n"
    return images.ensure(running.session, "serving", {"Dockerfile": dockerfile})


class Endpoint:
    """An endpoint of a running local cloud, called as plainly as possible."""

    def __init__(self, running, name: str = "", **about):
        self.running, self.session = running, running.session
        self.api = running.api("aiplatform").projects().locations().endpoints()
        made = self.api.create(
            parent=running.parent, endpointId=name or f"e{uuid.uuid4().hex[:8]}",
            body={"displayName": "e"} | about,
        )  # fmt: skip
        self.name = self.session.wait(self.session.call(made))["name"]

    def get(self) -> dict:
        return self.session.call(self.api.get(name=self.name))

    def deploy(self, model: str, deployed_id: str, split: dict | None = None) -> dict:
        body = {"deployedModel": {"id": deployed_id, "model": model, "dedicatedResources": MACHINE}}
        body["trafficSplit"] = {"0": 100} if split is None else split
        started = self.session.call(self.api.deployModel(endpoint=self.name, body=body))
        return self.session.wait(started)["deployedModel"]

    def undeploy(self, deployed_id: str, split: dict | None = None) -> None:
        body = {"deployedModelId": deployed_id} | ({"trafficSplit": split} if split else {})
        started = self.session.call(self.api.undeployModel(endpoint=self.name, body=body))
        self.session.wait(started)

    def share(self, split: dict) -> None:
        body = {"trafficSplit": split}
        self.session.call(self.api.patch(name=self.name, updateMask="trafficSplit", body=body))

    def predict(self, rows=(ROW,), verb: str = "predict", **headers) -> tuple[int, dict]:
        body = {"instances": list(rows)}
        path = f"/v1/{self.name}:{verb}"
        return self.running.request("POST", path, json_body=body, headers=headers)

    def remove(self) -> None:
        for deployed in self.get().get("deployedModels", []):
            if self.get().get("trafficSplit"):
                self.share({})
            self.undeploy(deployed["id"])
        self.session.wait(self.session.call(self.api.delete(name=self.name)))


@pytest.fixture(scope="module")
def models(emulator, saved_models) -> dict[str, str]:  # noqa: F811
    """Registered versions by the saved model's name."""
    image, made = serving_image(emulator), {}
    name = f"m{uuid.uuid4().hex[:8]}"
    for source in ("one", "two"):
        parent = made["one"].split("@")[0] if made else ""
        response = register(emulator, saved_models / source, name, image=image, parent=parent)
        made[source] = f"{response['model']}@{response['modelVersionId']}"
    return made


@pytest.fixture(scope="module")
def both(emulator, models):
    """An endpoint that serves both versions, ids 1 and 2."""
    endpoint = Endpoint(emulator)
    endpoint.deploy(models["one"], "1")
    endpoint.deploy(models["two"], "2", {"0": 0, "1": 100})
    yield endpoint
    endpoint.remove()


def servers_of(running, part: str = "") -> list[psutil.Process]:
    """The model servers a local cloud started, by its state folder in their arguments; those whose
    command has that part."""
    mine = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        own = any(w.startswith(f"--model_base_path={running.folder}") for w in words)
        if own and part in " ".join(words):
            mine.append(process)
    return mine


ZERO = {
    "machineSpec": MACHINE["machineSpec"], "minReplicaCount": 0, "maxReplicaCount": 1,
    "initialReplicaCount": 1, "scaleToZeroSpec": {"idleScaledownPeriod": "300s"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scaleToZeroSpec": {"idleScaledownPeriod": "299s"}}, "300s to 28800s"),
        ({"scaleToZeroSpec": {"minScaleupPeriod": "28801s"}}, "300s to 28800s"),
        ({"minReplicaCount": 1}, "it must be 0"),
        ({"initialReplicaCount": 2}, "1 to max_replica_count"),
        ({"initialReplicaCount": 0}, "1 to max_replica_count"),
        ({}, "on an endpoint that is not shared"),
    ],
)
def test_scaling_to_zero_has_its_rules(emulator, models, change, said):
    endpoint = Endpoint(emulator)
    deployed = {"model": models["one"], "dedicatedResources": ZERO | change}
    path = f"{endpoint.name}:deployModel"
    body = {"deployedModel": deployed}
    status, answer = emulator.request("POST", f"/v1beta1/{path}", json_body=body)
    assert (status, said in answer["error"]["message"]) == (400, True), answer
    status, answer = emulator.request("POST", f"/v1/{path}", json_body=body)
    assert (status, 'Unknown name "' in answer["error"]["message"]) == (400, True), answer
    endpoint.remove()


@pytest.mark.parametrize(
    ("deployed_id", "change", "mask", "code"),
    [
        ("9", MACHINE, "dedicatedResources.minReplicaCount", 404),
        ("1", MACHINE, "dedicatedResources.machineSpec", 400),
        ("1", MACHINE | {"minReplicaCount": 0}, "dedicated_resources.min_replica_count", 400),
        ("1", ZERO, "dedicatedResources.minReplicaCount,dedicatedResources.scaleToZeroSpec", 400),
        ("1", MACHINE | {"maxReplicaCount": 2}, "dedicatedResources.maxReplicaCount", 200),
    ],
)
def test_counts_of_replicas_can_be_changed(both, deployed_id, change, mask, code):
    """Two models are deployed, so that none of them may scale to zero."""
    body = {"deployedModel": {"id": deployed_id, "dedicatedResources": change}, "updateMask": mask}
    path, before = f"/v1beta1/{both.name}:mutateDeployedModel", both.get()["deployedModels"]
    assert both.running.request("POST", path, json_body=body)[0] == code
    after = both.get()["deployedModels"]
    assert (after == before) == (code != 200)
    if code == 200:
        assert after[0]["dedicatedResources"] == change
        body["deployedModel"]["dedicatedResources"] = MACHINE
        assert both.running.request("POST", path, json_body=body)[0] == 200


def test_an_answer_says_which_version_gave_it(both, models):
    both.share({"1": 100})
    status, answer = both.predict([ROW, {"a": 2, "b": 0}])
    assert status == 200
    model = models["one"].split("@")[0]
    assert answer == {
        "predictions": [5.0, 4.0], "deployedModelId": "1", "model": model,
        "modelDisplayName": model.rsplit("/")[-1], "modelVersionId": "1",
    }  # fmt: skip
    both.share({"1": 0, "2": 100})
    status, answer = both.predict()
    assert (answer["predictions"], answer["modelVersionId"]) == ([50.0], "2")


def test_traffic_is_shared_by_percent(both):
    both.share({"1": 80, "2": 20})
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: both.predict()[1], range(400)))
    counts = collections.Counter(answer["deployedModelId"] for answer in answers)
    assert 280 <= counts["1"] <= 360  # 5 standard deviations around 320
    expected = {"1": [5.0], "2": [50.0]}
    assert all(a["predictions"] == expected[a["deployedModelId"]] for a in answers)


def test_versions_are_switched_under_load_without_a_failure(both):
    both.share({"1": 100})
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(both.predict) for _ in range(100)]
        both.share({"2": 100})
        late = [pool.submit(both.predict) for _ in range(100)]
        answers = [future.result() for future in asked + late]
    assert {status for status, _ in answers} == {200}
    assert {answer["deployedModelId"] for _, answer in answers[100:]} == {"2"}


def test_undeploying_lets_requests_under_way_finish(emulator, models):
    endpoint = Endpoint(emulator)
    endpoint.deploy(models["one"], "1")
    endpoint.deploy(models["two"], "2", {"0": 50, "1": 50})
    rows = [ROW] * 5000
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(endpoint.predict, rows) for _ in range(40)]
        endpoint.undeploy("1", {"2": 100})
        answers = [future.result() for future in asked]
    assert {status for status, _ in answers} == {200}
    assert endpoint.get()["trafficSplit"] == {"2": 100}
    endpoint.undeploy("2")
    assert "trafficSplit" not in endpoint.get()
    status, answer = endpoint.predict()
    assert status == 400
    assert "traffic_split" in answer["error"]["message"]
    assert answer["error"]["status"] == "FAILED_PRECONDITION"
    endpoint.remove()


def test_raw_predict_passes_the_body_and_names_the_model(both):
    both.share({"1": 100})
    http = both.session.http()
    url = f"{both.running.url}/v1/{both.name}:rawPredict"
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"signature_name": "serving_default", "inputs": {"a": [1], "b": [1]}})
    answer, content = http.request(url, "POST", body, headers)
    assert (answer.status, json.loads(content)) == (200, {"outputs": [5.0]})
    assert answer["x-vertex-ai-deployed-model-id"] == "1"
    assert answer["x-vertex-ai-endpoint-id"] == both.name.rsplit("/", 1)[-1]
    answer, content = http.request(url, "POST", "{}", headers)
    assert answer.status == 400
    assert "error" in json.loads(content)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("{", "JSON"),
        ("[]", "message"),
        ("{}", "instances"),
        ('{"instances": []}', "instances"),
        ('{"instances": {}}', "instances"),
        ('{"instances": [{"a": 1, "b": 1}], "signature_name": "x"}', "signature_name"),
        ('{"instances": [{"a": 1, "b": "no"}]}', "'b'"),
        ('{"instances": [' + "1," * 800_000 + "1]}", "1500000 bytes"),
    ],
)  # fmt: skip
def test_what_google_refuses_is_refused(both, body, said):
    status, answer = both.running.request("POST", f"/v1/{both.name}:predict", body=body)
    assert status == 400
    assert said in answer["error"]["message"]
    assert answer["error"]["code"] == 400


def test_parameters_and_labels_are_taken(both):
    both.share({"1": 100})
    body = {"instances": [ROW], "parameters": {"x": 1}, "labels": {"team": "a"}}
    status, answer = both.running.request("POST", f"/v1/{both.name}:predict", json_body=body)
    assert (status, answer["predictions"]) == (200, [5.0])


def test_a_dedicated_endpoint_is_reached_by_its_own_host_only(emulator, models):
    endpoint = Endpoint(emulator, dedicatedEndpointEnabled=True)
    host = endpoint.get()["dedicatedEndpointDns"]
    short = endpoint.name.rsplit("/", 1)[-1]
    assert host.startswith(f"{short}.us-central1-")
    assert host.endswith(".prediction.vertexai.goog")
    endpoint.deploy(models["one"], "7")
    status, answer = endpoint.predict()
    assert status == 400
    assert host in answer["error"]["message"]
    rows = [ROW] * 90_000  # over the shared endpoints' limit
    status, answer = endpoint.predict(rows, Host=host)
    assert (status, answer["predictions"]) == (200, [5.0] * 90_000)
    endpoint.remove()


def test_a_shared_endpoint_has_no_host_of_its_own(both):
    assert "dedicatedEndpointDns" not in both.get()
    assert both.predict(Host="x.us-central1-1.prediction.vertexai.goog")[0] == 404


def test_refused_changes_change_nothing(both, models):
    both.share({"1": 100})
    before = both.get()
    refused = [
        lambda: both.share({"1": 50, "9": 50}),
        lambda: both.share({"1": 50}),
        lambda: both.undeploy("1"),
        lambda: both.undeploy("9"),
        lambda: both.deploy(models["one"], "1"),
        lambda: both.deploy(models["one"], "3", {"0": 50, "9": 50}),
        lambda: both.deploy(f"{models['one']}00", "3"),
        lambda: both.session.call(both.api.delete(name=both.name)),
        lambda: both.session.call(both.api.patch(name=both.name, updateMask="name", body={})),
    ]
    for change in refused:
        with pytest.raises(CloudError):
            change()
    assert both.get() == before
    assert both.predict()[0] == 200


def test_a_deployed_version_is_not_deleted(both, models):
    service = both.running.api("aiplatform").projects().locations().models()
    model = models["two"].split("@")[0]
    for request in (service.delete(name=model), service.deleteVersion(name=models["two"])):
        with pytest.raises(CloudError, match="deployed"):
            both.session.call(request)
    got = both.session.call(service.get(name=models["two"]))
    assert {"endpoint": both.name, "deployedModelId": "2"} in got["deployedModels"]


def test_a_deploy_that_fails_leaves_nothing_behind(emulator, tmp_path):
    (tmp_path / "model.txt").write_text("no version here")
    name = f"m{uuid.uuid4().hex[:8]}"
    image = serving_image(emulator)
    empty = register(emulator, tmp_path, name, image=image)["model"]
    foreign = register(emulator, tmp_path, f"{name}x", image="gcr.io/p/own:1")["model"]
    endpoint = Endpoint(emulator)
    count = len(servers_of(emulator))
    with pytest.raises(CloudError, match="Model server exited unexpectedly(.|\n)*No versions"):
        endpoint.deploy(empty, "1")
    with pytest.raises(CloudError, match="gcr.io/p/own:1 was not built here"):
        endpoint.deploy(foreign, "1")
    assert "deployedModels" not in endpoint.get()
    assert len(servers_of(emulator)) == count
    text = f'resource.labels.endpoint_id="{endpoint.name.rsplit("/", 1)[-1]}"'
    body = {"resourceNames": ["projects/local"], "filter": text}
    _, logged = emulator.request("POST", "/v2/entries:list", json_body=body)
    assert "No versions" in json.dumps(logged)
    endpoint.remove()


def test_a_server_that_listens_elsewhere_is_refused(emulator, saved_models):  # noqa: F811
    name = f"m{uuid.uuid4().hex[:8]}"
    spec = {
        "imageUri": serving_image(emulator), "command": ["/usr/bin/tensorflow_model_server"],
        "args": ["--model_base_path=$(AIP_STORAGE_URI)", "--rest_api_port=8501"],
    }  # fmt: skip
    model = register(emulator, saved_models / "one", name, containerSpec=spec)["model"]
    endpoint = Endpoint(emulator)
    with pytest.raises(CloudError, match="rest_api_port=8501.* port 8080"):
        endpoint.deploy(model, "1")
    endpoint.remove()


def test_text_columns_through_a_prebuilt_image(emulator, saved_models):  # noqa: F811
    name = f"m{uuid.uuid4().hex[:8]}"
    model = register(emulator, saved_models / "words" / "1", name)["model"]
    endpoint = Endpoint(emulator)
    endpoint.deploy(model, "1")
    expected = json.loads((saved_models / "words.json").read_text())
    status, answer = endpoint.predict(ROWS)
    assert status == 200
    assert [row["class"] for row in answer["predictions"]] == expected["class"]
    endpoint.remove()


def test_a_killed_model_server_is_started_again_by_the_next_request(both):
    both.share({"1": 100})
    assert both.predict()[0] == 200
    before = servers_of(both.running)
    for process in before:
        os.kill(process.pid, signal.SIGKILL)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: both.predict(), range(8)))
    assert answers == [answers[0]] * 8
    assert answers[0][1]["predictions"] == [5.0]
    assert not {p.pid for p in before} & {p.pid for p in servers_of(both.running)}


def test_a_killed_local_cloud_leaves_no_server_and_serves_again(start_emulator, saved_models):  # noqa: F811
    running = start_emulator()
    image = serving_image(running)
    model = register(running, saved_models / "two", "kept", image=image)["model"]
    endpoint = Endpoint(running, "kept")
    endpoint.deploy(model, "1")
    assert endpoint.predict()[1]["predictions"] == [50.0]
    assert len(servers_of(running)) == 1
    running.kill()
    until(lambda: not servers_of(running))
    again = start_emulator()
    endpoint.running = again
    status, answer = endpoint.predict()
    assert (status, answer["predictions"]) == (200, [50.0])
    again.stop()
    assert not servers_of(again)


def test_one_is_found_by_its_display_name_alone(emulator):
    """Whatever the name holds, and after it has changed."""
    api, parent = emulator.api("aiplatform").projects().locations().endpoints(), emulator.parent

    def found(chosen: str) -> list[str]:
        answer = emulator.session.call(api.list(parent=parent, filter=chosen))
        return [item["displayName"] for item in answer.get("endpoints", [])]

    mark = uuid.uuid4().hex[:8]
    names = [f"{mark} a", f"{mark} ü € 'q'", f'{mark} "quoted" \\ back', f"{mark} A", f"{mark}"]
    made = {name: Endpoint(emulator, displayName=name) for name in names}
    for name in names:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        assert found(f'displayName="{quoted}"') == found(f'display_name = "{quoted}"') == [name]
        assert found(f'displayName="{quoted}" AND displayName="no"') == []
    assert found(f'NOT displayName="{mark}" AND displayName:"{mark}"') != []
    first = made[names[0]]
    body = {"displayName": f"{mark} z"}
    emulator.session.call(api.patch(name=first.name, updateMask="displayName", body=body))
    assert found(f'displayName="{names[0]}"') == []
    assert found(f'displayName="{mark} z"') == [f"{mark} z"]
    for one in made.values():
        emulator.session.wait(emulator.session.call(api.delete(name=one.name)))
    assert found(f'displayName="{mark} z"') == []
