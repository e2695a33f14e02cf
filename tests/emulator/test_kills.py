"""kill -9 at points drawn beforehand, over the life of objects, jobs, models and endpoints."""

import base64
import http.client
import itertools
import json
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import pytest

from tests.emulator.conftest import Emulator, until
from tests.emulator.saved_models import saved_models  # noqa: F401

PARENT = "/v1/projects/local/locations/us-central1"
LARGE = random.Random(5).randbytes(2**20 + 7)
CHUNK = 2**18
# Leaves one line a run: a job that ran twice would leave two.
STUB = "import sys, time; f = open(sys.argv[1], 'a'); time.sleep(0.3); f.write('ran\\n'); f.close()"
ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED"}


class KilledError(Exception):
    """The call got no answer: the local cloud was killed."""


class Client:
    """Calls a local cloud that dies at chosen calls, and starts it again on the same folder."""

    def __init__(self, start: Callable[..., Emulator], seed: int, kills: int, apart: int):
        self.start, self.draw, self.left, self.apart = start, random.Random(seed), kills, apart
        self.running, self.countdown, self.killer, self.headers = start(), 3, None, None

    def __call__(self, method: str, path: str, body=None, *, expect=(200,), headers=None):
        """(status, JSON); any other status than those expected is a failure of the test."""
        self.countdown -= 1
        if self.countdown == 0 and self.left:
            # Before the call arrives, in the middle of it, or when its work goes on behind it.
            delay_s = self.draw.choice([0, 0.002, 0.01, 0.1, 1]) * self.draw.random()
            self.killer = threading.Timer(delay_s, self.running.kill)
            self.killer.start()
        raw = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {self.running.token}"} | (headers or {})
        connection = http.client.HTTPConnection(self.running.url.removeprefix("http://"))
        try:
            connection.request(method, path, raw, sent)
            answer = connection.getresponse()
            content, self.headers = answer.read(), answer.headers
        except (OSError, http.client.HTTPException) as error:
            if self.killer is None:
                raise
            raise KilledError(path) from error
        finally:
            connection.close()
        assert answer.status in expect, (method, path, answer.status, content)
        return answer.status, json.loads(content) if content else {}

    def again(self) -> None:
        self.killer.join()
        self.running, self.killer, self.left = self.start(), None, self.left - 1
        self.countdown = self.draw.randint(1, 2 * self.apart)

    def operation(self, path: str, body: dict, expect=(200,)) -> dict | None:
        """Start an operation and wait for its end; None when the call was refused as `expect`ed."""
        status, operation = self("POST", path, body, expect=expect)
        while status == 200 and not operation.get("done"):
            time.sleep(0.02)
            operation = self("GET", f"/v1/{operation['name']}")[1]
        assert "error" not in operation or status != 200, operation
        return operation.get("response") if status == 200 else None


class Life:
    """One life of everything. Steps can be repeated; `known` checks what was acknowledged."""

    def __init__(self, call: Client, name: str, folder: Path):
        self.call, self.folder, self.bucket, self.known = call, folder, f"bucket-{name}", {}
        self.objects = f"/storage/v1/b/{self.bucket}/o"
        self.models = {n: f"{PARENT}/models/{n}-{name}" for n in ("one", "two")}
        self.endpoint, self.upload, self.job = f"{PARENT}/endpoints/e-{name}", "", ""
        self.saved, self.sent, self.versions = {}, 0, {}

    def steps(self) -> list[Callable[[], None]]:
        return [
            self.make_bucket, self.put_small, self.put_large, self.put_versions, self.start_job,
            self.put_model,
            lambda: self.register("one"), lambda: self.register("two"), self.make_endpoint,
            lambda: self.deploy("one", "1", {"0": 100}), self.end_job,
            lambda: self.deploy("two", "2", {"1": 90, "0": 10}), self.move_traffic,
            lambda: self.undeploy("1", {"2": 100}), lambda: self.undeploy("2", {}),
            self.drop_endpoint, self.drop_models, self.drop_job, self.drop_objects,
            self.drop_versions,
        ]  # fmt: skip

    # --- buckets

    def make_bucket(self) -> None:
        body = {"name": self.bucket}
        self.call("POST", "/storage/v1/b?project=local", body, expect=(200, 409))
        self.known["bucket"] = lambda: self.call("GET", f"/storage/v1/b/{self.bucket}")

    def put(self, name: str, content: bytes) -> None:
        path = f"/upload{self.objects}?uploadType=media&name={name}"
        self.call("POST", path, content)
        self.saved[name] = content

    def put_small(self) -> None:
        for i in range(3):
            self.put(f"small/{i}", f"content {i}".encode())

    def put_large(self) -> None:
        """A resumable upload that goes on where it was."""
        if not self.upload:
            path = f"/upload{self.objects}?uploadType=resumable&name=large"
            self.call("POST", path, {})
            self.upload = self.call.headers["Location"].removeprefix(self.call.running.url)
        size, status = len(LARGE), 308
        while status == 308:
            span = {"Content-Range": f"bytes */{size}"}
            status, _ = self.call("PUT", self.upload, b"", headers=span, expect=(200, 308))
            if status == 308:
                stored = int(self.call.headers.get("Range", "bytes=0--1")[8:]) + 1
                assert stored >= self.sent
                chunk = LARGE[stored : stored + CHUNK]
                span = {"Content-Range": f"bytes {stored}-{stored + len(chunk) - 1}/{size}"}
                status, _ = self.call("PUT", self.upload, chunk, headers=span, expect=(200, 308))
                self.sent = stored + len(chunk)
        self.saved["large"] = LARGE

    def put_versions(self) -> None:
        """An object of many versions, which is also the name of a folder."""
        body = {"name": f"versions-{self.bucket}", "versioning": {"enabled": True}}
        self.call("POST", "/storage/v1/b?project=local", body, expect=(200, 409))
        self.known["versions"] = self.check_versions
        upload = f"/upload/storage/v1/b/versions-{self.bucket}/o?uploadType=media&name="
        for number in range(len(self.versions), 8):
            made = self.call("POST", f"{upload}v", str(number).encode())[1]
            self.versions[made["generation"]] = number
            self.call("POST", f"{upload}v/{number % 2 or ''}", b"0")

    def check_versions(self) -> None:
        path = f"/storage/v1/b/versions-{self.bucket}/o/v?alt=media"
        for generation, number in self.versions.items():
            assert self.call("GET", f"{path}&generation={generation}")[1] == number
        if self.versions:
            assert self.call("GET", path)[1] >= max(self.versions.values())

    def drop_versions(self) -> None:
        self.known.pop("versions", None)
        path = f"/storage/v1/b/versions-{self.bucket}"
        status, answer = self.call("GET", f"{path}/o?versions=true", expect=(200, 404))
        for item in answer.get("items", []) if status == 200 else []:
            place = f"{path}/o/{item['name'].replace('/', '%2F')}"
            query = f"generation={item['generation']}"
            self.call("DELETE", f"{place}?{query}", expect=(204, 404))
        self.call("DELETE", path, expect=(204, 404))

    # --- jobs

    def start_job(self) -> None:
        """Looked for before it is made, as a client must whose answer was lost."""
        jobs = self.call("GET", f"{PARENT}/customJobs?filter=displayName%3D{self.bucket}")[1]
        found = jobs.get("customJobs", [])
        assert len(found) <= 1
        if not found:
            command = ["python", "-c", STUB, f"/gcs/{self.bucket}/out.txt"]
            pool = {
                "machineSpec": {"machineType": "n1-standard-4"}, "replicaCount": "1",
                "containerSpec": {"imageUri": "python:3.11", "command": command},
            }  # fmt: skip
            body = {"displayName": self.bucket, "jobSpec": {"workerPoolSpecs": [pool]}}
            found = [self.call("POST", f"{PARENT}/customJobs", body)[1]]
        self.job = f"/v1/{found[0]['name']}"
        self.known["job"] = lambda: self.call("GET", self.job)

    def end_job(self) -> None:
        while (job := self.call("GET", self.job)[1])["state"] not in ENDED:
            time.sleep(0.02)
        # A kill of the local cloud is none of the job's.
        assert job["state"] == "JOB_STATE_SUCCEEDED", job
        self.saved["out.txt"] = b"ran\n"

    def drop_job(self) -> None:
        self.known.pop("job", None)
        self.call("DELETE", self.job, expect=(200, 404))
        self.known["no job"] = lambda: self.call("GET", self.job, expect=(404,))

    # --- models and endpoints

    def put_model(self) -> None:
        for name in self.models:
            top = self.folder / name
            for path in sorted(path for path in top.rglob("*") if path.is_file()):
                self.put(f"{name}/{path.relative_to(top).as_posix()}", path.read_bytes())

    def register(self, name: str) -> None:
        spec = {"imageUri": "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"}
        uri = f"gs://{self.bucket}/{name}/"
        model = {"displayName": name, "artifactUri": uri, "containerSpec": spec}
        path = self.models[name]
        body = {"model": model, "modelId": path.rsplit("/", 1)[-1]}
        if not self.call.operation(f"{PARENT}/models:upload", body, expect=(200, 409)):
            # Acknowledged by nobody, but begun: it ends by itself.
            until(lambda: self.call("GET", path, expect=(200, 404))[0] == 200)
        self.known[path] = lambda: self.check_model(path)

    def check_model(self, path: str) -> None:
        found = self.call("GET", f"{path}:listVersions")[1]["models"]
        assert [one["versionId"] for one in found] == ["1"]

    def make_endpoint(self) -> None:
        query = f"endpointId={self.endpoint.rsplit('/', 1)[-1]}"
        self.call("POST", f"{PARENT}/endpoints?{query}", {"displayName": "e"}, expect=(200, 409))
        self.known["endpoint"] = lambda: self.call("GET", self.endpoint)

    def deploy(self, name: str, deployed_id: str, split: dict) -> None:
        machine = {"machineSpec": {"machineType": "n1-standard-2"}, "minReplicaCount": 1}
        model = self.models[name].removeprefix("/v1/")
        deployed = {"id": deployed_id, "model": model, "dedicatedResources": machine}
        body = {"deployedModel": deployed, "trafficSplit": split}
        self.call.operation(f"{self.endpoint}:deployModel", body, expect=(200, 409))
        until(lambda: deployed_id in self.deployed())
        self.known["deployed"] = lambda: self.check_deployed(deployed_id)
        self.predict()

    def deployed(self) -> list[str]:
        models = self.call("GET", self.endpoint)[1].get("deployedModels", [])
        return [one["id"] for one in models]

    def check_deployed(self, least: str) -> None:
        assert least in self.deployed()
        self.predict()

    def predict(self) -> None:
        split = self.call("GET", self.endpoint)[1]["trafficSplit"]
        assert sum(split.values()) == 100
        body = {"instances": [{"a": 1.0, "b": 1.0}]}
        answer = self.call("POST", f"{self.endpoint}:predict", body)[1]
        assert split[answer["deployedModelId"]]
        assert answer["predictions"] == [{"1": 5.0, "2": 50.0}[answer["deployedModelId"]]]

    def move_traffic(self) -> None:
        split = {"1": 0, "2": 100}
        self.call("PATCH", f"{self.endpoint}?updateMask=trafficSplit", {"trafficSplit": split})

        def check() -> None:
            assert self.call("GET", self.endpoint)[1]["trafficSplit"] == split
            self.predict()

        self.known["deployed"] = check

    def undeploy(self, deployed_id: str, split: dict) -> None:
        self.known.pop("deployed", None)
        body = {"deployedModelId": deployed_id, "trafficSplit": split}
        self.call.operation(f"{self.endpoint}:undeployModel", body, expect=(200, 404))
        left = list(split)

        def check() -> None:
            assert self.deployed() == left
            if left:
                self.predict()

        self.known["deployed"] = check

    def drop_endpoint(self) -> None:
        self.known.pop("deployed", None)
        self.known.pop("endpoint", None)
        self.call("DELETE", self.endpoint, expect=(200, 404))
        self.known["no endpoint"] = lambda: self.call("GET", self.endpoint, expect=(404,))

    def drop_models(self) -> None:
        for path in self.models.values():
            self.known.pop(path, None)
            self.call("DELETE", path, expect=(200, 404))
            self.known[path] = lambda path=path: self.call("GET", path, expect=(404,))

    def drop_objects(self) -> None:
        for name in list(self.saved):
            del self.saved[name]
            quoted = name.replace("/", "%2F")
            self.call("DELETE", f"{self.objects}/{quoted}", expect=(204, 404))
        self.known.pop("bucket", None)
        self.call("DELETE", f"/storage/v1/b/{self.bucket}", expect=(204, 404))
        self.known["no bucket"] = lambda: self.call("GET", self.objects, expect=(404,))

    # --- after a kill

    def verify(self) -> None:
        """What was acknowledged is there, and what is there is whole."""
        for check in list(self.known.values()):
            check()
        status, answer = self.call("GET", self.objects, expect=(200, 404))
        items = {item["name"]: item for item in answer.get("items", [])} if status == 200 else {}
        assert set(self.saved) <= set(items), set(self.saved) - set(items)
        for name, item in items.items():
            content = (self.call.running.folder / "buckets" / self.bucket / name).read_bytes()
            checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
            assert (item["crc32c"], item["size"]) == (checksum, str(len(content))), name
            assert name == "out.txt" or content == self.saved.get(name, content), name
            assert name != "large" or content == LARGE


def live(call: Client, name: str, folder: Path) -> None:
    life = Life(call, name, folder)
    steps = life.steps()
    while steps:
        try:
            steps[0]()
            steps.pop(0)
            continue
        except KilledError:
            pass
        while call.killer:
            call.again()
            try:
                life.verify()
            except KilledError:
                continue


@pytest.mark.parametrize(
    ("seed", "kills", "apart"), [(1, 5, 15), pytest.param(2, 60, 6, marks=pytest.mark.soak)]
)
def test_nothing_acknowledged_is_lost(start_emulator, saved_models, seed, kills, apart):  # noqa: F811
    call = Client(start_emulator, seed, kills, apart)
    for number in itertools.count():
        live(call, f"life{number}", saved_models)
        if not call.left:
            break
    assert not [line for line in call.running.commands() if "model_server" in line]
    for folder in ("uploads", "models", "apart"):
        found = [path.name for path in (call.running.folder / folder).iterdir()]
        assert not [name for name in found if folder != "models" or name.startswith(".")], found
