"""Batch prediction jobs through HTTP: files in, files out, bad rows, cancels, kills."""

import json
import os
import random
import signal
import time
import uuid

import joblib
import numpy as np
import psutil
import pytest
from google.cloud import aiplatform
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from helpers import storage
from helpers.errors import CloudError
from tests.emulator.conftest import until
from tests.emulator.saved_models import register, saved_models  # noqa: F401
from tests.emulator.test_endpoints import servers_of

pytestmark = pytest.mark.long

SKLEARN = {"imageUri": "us-docker.pkg.dev/vertex-ai/prediction/sklearn-cpu.1-5:latest"}
ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"}
SUCCEEDED = "JOB_STATE_SUCCEEDED"
RESULTS, ERRORS = "prediction.results-00000-of-00001", "prediction.errors_stats-00000-of-00001"


class Batches:
    """The jobs of a running local cloud, on folders of their own."""

    def __init__(self, running, model: str):
        self.running, self.session, self.model = running, running.session, model
        self.api = running.api("aiplatform").projects().locations().batchPredictionJobs()

    def put(self, files: dict[str, str | bytes]) -> str:
        """Store input files; the folder's address."""
        base = f"gs://local-bucket/{uuid.uuid4().hex[:8]}"
        for name, text in files.items():
            content = text.encode() if isinstance(text, str) else text
            storage.write_bytes(self.session, content, f"{base}/{name}")
        return base

    def body(self, *uris: str, kind: str = "jsonl", **fields) -> dict:
        return {
            "displayName": "b", "model": self.model,
            "inputConfig": {"instancesFormat": kind, "gcsSource": {"uris": list(uris)}},
            "outputConfig": {
                "predictionsFormat": "jsonl",
                "gcsDestination": {"outputUriPrefix": uris[0].rpartition("/")[0] + "/out/"},
            },
            "dedicatedResources": {"machineSpec": {"machineType": "n1-standard-2"}},
        } | fields  # fmt: skip

    def create(self, *uris: str, **fields) -> str:
        body = self.body(*uris, **fields)
        return self.session.call(self.api.create(parent=self.running.parent, body=body))["name"]

    def get(self, name: str) -> dict:
        return self.session.call(self.api.get(name=name))

    def end(self, name: str) -> dict:
        until(lambda: self.get(name)["state"] in ENDED, 120)
        return self.get(name)

    def read(self, job: dict) -> tuple[list[dict], list[dict]]:
        """Results and errors of a job that has ended."""
        folder = job["outputInfo"]["gcsOutputDirectory"]
        found = {uri.rsplit("/", 1)[-1]: uri for uri in storage.list_uris(self.session, folder)}
        assert set(found) == {RESULTS, ERRORS}
        both = [storage.read_bytes(self.session, found[name]) for name in (RESULTS, ERRORS)]
        return tuple([json.loads(line) for line in one.splitlines()] for one in both)

    def run(self, *uris: str, **fields) -> tuple[dict, list[dict], list[dict]]:
        job = self.end(self.create(*uris, **fields))
        return job, *self.read(job)


@pytest.fixture(scope="session")
def fitted(tmp_path_factory):
    """Models of scikit-learn, which need no TensorFlow on a cloud of their own: `add` again, and
    `count`, which gives a row's place in its batch (for rows of a one)."""
    folder = tmp_path_factory.mktemp("fitted")
    features = np.random.default_rng(0).normal(size=(20, 2))
    add = LinearRegression().fit(features, features @ [1, 10])
    running = FunctionTransformer(np.cumsum, kw_args={"axis": 0})
    count = make_pipeline(running, LinearRegression()).fit(np.ones((20, 1)), np.arange(1, 21))
    for name, model in {"add": add, "count": count}.items():
        (folder / name).mkdir()
        joblib.dump(model, folder / name / "model.joblib")
    return folder


def registered(running, folder, **about) -> str:
    return register(running, folder, f"m{uuid.uuid4().hex[:8]}", **about)["model"]


@pytest.fixture
def add(emulator, saved_models) -> Batches:  # noqa: F811
    return Batches(emulator, registered(emulator, saved_models / "add"))


@pytest.fixture
def fits(emulator, fitted) -> Batches:
    return Batches(emulator, registered(emulator, fitted / "add", containerSpec=SKLEARN))


@pytest.fixture
def slow(fits):
    """Rows enough for a while, one a request; as many uris as wanted."""
    base = fits.put({"rows.jsonl": "".join(f"[{i}, 1]\n" for i in range(8000))})
    return {"uris": [f"{base}/rows.jsonl"], "manualBatchTuningParameters": {"batchSize": 1}}


def test_files_are_found_by_wildcards_and_scored_in_order(add):
    base = add.put({
        "a-1.jsonl": "[1, 0]\n\n[2, 0]\n", "a-2.jsonl": "[3, 0]", "b/c/a-3.jsonl": "[4, 0]\n",
        "a-2.csv": "[5, 0]\n", "a-10.jsonl": "[6, 0]\n", "e[1].jsonl": "[7, 0]\n",
    })  # fmt: skip

    wanted = {
        ("a-?.jsonl",): [1, 2, 3],
        ("a-2.jsonl", "a-1.jsonl"): [3, 1, 2],
        ("**.jsonl",): [1, 2, 6, 3, 4, 7],
        ("*/c/*",): [4],
        ("a-[12].*",): [1, 2, 5, 3],
    }
    begun = {names: add.create(*(f"{base}/{name}" for name in names)) for names in wanted}
    for names, expected in wanted.items():
        job = add.end(begun[names])
        results, errors = add.read(job)
        assert [result["instance"][0] for result in results] == expected
        assert [round(result["prediction"]) for result in results] == expected
        stats = {"successfulCount": str(len(expected)), "failedCount": "0", "incompleteCount": "0"}
        assert (job["state"], job["completionStats"], errors) == (SUCCEEDED, stats, [])


def test_the_job_says_where_its_output_is_and_what_made_it(add):
    base = add.put({"a.jsonl": "[1, 2]\n"})
    job = add.end(add.create(f"{base}/a.jsonl", model=f"{add.model}@default", labels={"a": "b"}))
    name = add.model.rsplit("/", 1)[-1]
    directory = f"{base}/out/prediction-{name}-{job['createTime'][:23]}Z"
    assert job["outputInfo"] == {"gcsOutputDirectory": directory}
    assert (job["modelVersionId"], job["labels"]) == ("1", {"a": "b"})
    assert job["createTime"] < job["startTime"] < job["endTime"]
    assert not any(key.startswith("_") for key in job)
    found = add.session.list(add.api, "batchPredictionJobs", parent=add.running.parent)
    assert job in found
    add.session.wait(add.session.call(add.api.delete(name=job["name"])))
    with pytest.raises(CloudError, match="Batch prediction job does not exist"):
        add.get(job["name"])
    assert len(storage.list_uris(add.session, directory)) == 2


def test_bad_rows_go_to_the_errors_file_and_stop_nothing(add):
    lines = [f"[{i}, 0]" for i in range(300)]
    bad = {7: "[7]", 8: '["x", 0]', 100: "{", 101: "[1, 0],[2, 0]", 102: "[1", 103: ", 0]"}
    for place, line in bad.items():
        lines[place] = line
    base = add.put({"a.jsonl": "\n".join(lines).encode() + b"\n\xff\xfe"})
    job, results, errors = add.run(f"{base}/a.jsonl")
    good = [i for i in range(300) if i not in bad]
    assert [result["instance"][0] for result in results] == good
    np.testing.assert_allclose([result["prediction"] for result in results], good, atol=1e-6)
    assert len(errors) == 7
    assert {"[1, 0],[2, 0]", "{", "[1", ", 0]"} < {str(error["instance"]) for error in errors}
    assert all(error["error"].keys() == {"code", "message"} for error in errors)
    said = {str(error["instance"]): error["error"]["message"] for error in errors}
    assert "answered 400" in said["[7]"]
    assert job["state"] == SUCCEEDED
    assert job["completionStats"]["failedCount"] == "7"


def test_rows_of_csv_files_become_arrays(add):
    text = '"a","b"\n1,2.5\n\n3,4\n"five",6\n7,eight\n'
    base = add.put({"a.csv": text, "b.csv": "a,b\r\n5,6\r\n"})
    job, results, errors = add.run(f"{base}/*.csv", kind="csv")
    assert [result["instance"] for result in results] == [[1.0, 2.5], [3.0, 4.0], [5.0, 6.0]]
    np.testing.assert_allclose([result["prediction"] for result in results], [26, 43, 65])
    assert sorted(str(e["instance"]) for e in errors) == ["7,eight", "['five', 6.0]"]
    assert job["completionStats"]["incompleteCount"] == "0"


def test_a_model_of_named_inputs_takes_objects_and_fails_on_csv(emulator, saved_models):  # noqa: F811
    response = register(emulator, saved_models / "words", f"m{uuid.uuid4().hex[:8]}")
    named = Batches(emulator, response["model"])
    rows = [{"a": 1, "word": "x", "id": i} for i in range(3)]
    lines = [*map(json.dumps, rows), '{"a": 1, "word": "x"}', "[1]"]
    base = named.put({"a.jsonl": "\n".join(lines), "a.csv": 'a,word\n1,"x"\n'})
    keyed = named.create(f"{base}/a.jsonl", instanceConfig={"keyField": "id"})
    plain = named.create(f"{base}/a.csv", kind="csv")
    job = named.end(keyed)
    results, errors = named.read(job)
    assert [result["key"] for result in results] == [0, 1, 2]
    assert all(result.keys() == {"key", "prediction"} for result in results)
    assert results[0]["prediction"]["class"] == "größer"
    assert [error["instance"] for error in errors] == lines[3:]
    job = named.end(plain)
    assert job["state"] == "JOB_STATE_FAILED"
    assert "None of 1 rows succeeded" in job["error"]["message"]
    assert "Rows must be objects" in job["error"]["message"]


def test_fields_are_chosen_and_arranged(add):
    base = add.put({"a.jsonl": '{"a": 1, "b": 2, "c": 3}\n'})
    arranged = {"instanceType": "array", "includedFields": ["b", "a"]}
    _, results, _ = add.run(f"{base}/a.jsonl", instanceConfig=arranged)
    assert results[0]["instance"] == {"a": 1, "b": 2, "c": 3}
    assert results[0]["prediction"] == pytest.approx(12)
    arranged = {"instanceType": "array", "excludedFields": ["a"]}
    _, results, _ = add.run(f"{base}/a.jsonl", instanceConfig=arranged)
    assert results[0]["prediction"] == pytest.approx(32)


@pytest.mark.parametrize(("size", "expected"), [(0, 64), (7, 7)])
def test_the_batch_size_is_honoured(emulator, fitted, size, expected):
    count = Batches(emulator, registered(emulator, fitted / "count", containerSpec=SKLEARN))
    base = count.put({"a.jsonl": "[1]\n" * 150})
    fields = {"manualBatchTuningParameters": {"batchSize": size}} if size else {}
    _, results, _ = count.run(f"{base}/a.jsonl", **fields)
    places = [round(result["prediction"]) for result in results]
    assert places == [i % expected + 1 for i in range(150)]


def test_a_job_in_which_nothing_succeeds_gives_up(add):
    base = add.put({"a.jsonl": "[1]\n" * 3000})
    job, results, errors = add.run(f"{base}/a.jsonl")
    assert job["state"] == "JOB_STATE_FAILED"
    assert results == []
    assert 1000 <= len(errors) < 1100
    stats = {key: int(value) for key, value in job["completionStats"].items()}
    assert stats["failedCount"] == len(errors)
    assert stats["incompleteCount"] == 3000 - len(errors)


def test_jobs_that_cannot_work(add, tmp_path):
    base = add.put({"a.jsonl": "[1, 2]\n", "a.csv": "a,b\n1,2\n"})
    uri = f"{base}/a.jsonl"
    elsewhere = add.model.replace("us-central1", "us-east1")
    for change, said in [
        ({"model": f"{add.model}x"}, "Model does not exist"),
        ({"model": f"{add.model}@9"}, "@9"),
        ({"model": elsewhere}, "own location"),
        ({"dedicatedResources": None}, "dedicated_resources"),
        ({"generateExplanation": True}, "generateExplanation .* not emulated"),
        ({"kind": "csv", "instanceConfig": {"keyField": "a"}}, "instance_config"),
        ({"kind": "bigquery"}, "instances_format 'bigquery' is not emulated"),
        ({"completionStatistics": {}}, "completionStatistics"),
    ]:
        with pytest.raises(CloudError, match=said):
            add.create(uri, **change)
    nowhere = {"predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": "gs://none/x"}}
    no_model = tmp_path_of_text(tmp_path)
    broken = Batches(add.running, registered(add.running, no_model, containerSpec=SKLEARN))
    for name, said in [
        (add.create(f"{base}/none*.jsonl"), "There are no files at"),
        (add.create(uri, outputConfig=nowhere), "bucket does not exist: none"),
        (broken.create(uri), "model.joblib"),
    ]:
        job = add.end(name)
        assert job["state"] == "JOB_STATE_FAILED"
        assert said in job["error"]["message"]
        assert "outputInfo" not in job


def tmp_path_of_text(folder):
    (folder / "model.txt").write_text("no model here")
    return folder


def test_a_running_job_shows_its_progress_and_is_cancelled(fits, slow):
    name = fits.create(*slow.pop("uris"), **slow)
    with pytest.raises(CloudError, match="cancel it, then delete it"):
        fits.session.call(fits.api.delete(name=name))
    seen = until(lambda: fits.get(name).get("completionStats"))
    assert 0 < int(seen["successfulCount"]) < 8000
    assert int(seen["successfulCount"]) + int(seen["incompleteCount"]) == 8000
    assert fits.get(name)["state"] == "JOB_STATE_RUNNING"
    prefix = fits.get(name)["outputConfig"]["gcsDestination"]["outputUriPrefix"]
    assert storage.list_uris(fits.session, prefix) == []
    fits.session.call(fits.api.cancel(name=name))
    job = fits.end(name)
    assert (job["state"], job["error"]["code"]) == ("JOB_STATE_CANCELLED", 1)
    fits.session.call(fits.api.cancel(name=name))
    assert fits.get(name) == job
    assert storage.list_uris(fits.session, prefix) == []
    until(lambda: not servers_of(fits.running))
    fits.session.wait(fits.session.call(fits.api.delete(name=name)))


def test_a_model_server_that_dies_is_started_again(fits, slow):
    name = fits.create(*slow.pop("uris"), **slow)
    until(lambda: fits.get(name).get("completionStats"))
    for process in servers_of(fits.running):
        os.kill(process.pid, signal.SIGKILL)
    results, errors = fits.read(fits.end(name))
    assert [result["instance"][0] for result in results] == list(range(8000))
    assert errors == []


@pytest.mark.parametrize(
    ("how", "when"),
    [
        pytest.param("kill", "pending", marks=pytest.mark.soak),
        ("kill", "running"),
        ("stop", "running"),
    ],
)
def test_a_job_goes_on_after_the_local_cloud_ended(start_emulator, fitted, how, when):
    first = start_emulator()
    batches = Batches(first, registered(first, fitted / "add", containerSpec=SKLEARN))
    base = batches.put({"a.jsonl": "".join(f"[{i}, 1]\n" for i in range(6000)) + "[1]\n"})
    size = {"manualBatchTuningParameters": {"batchSize": 1}}
    name, before = batches.create(f"{base}/a.jsonl", **size), 0
    if when == "running":
        before = int(until(lambda: batches.get(name).get("completionStats"))["successfulCount"])
    getattr(first, how)()
    until(lambda: not servers_of(first))
    assert not (first.folder / "buckets" / base.removeprefix("gs://") / "out").exists()
    second = start_emulator()
    again = Batches(second, batches.model)
    seen = int(again.get(name).get("completionStats", {}).get("successfulCount", 0))
    assert before <= seen < 6000
    results, errors = again.read(again.end(name))
    assert [result["instance"][0] for result in results] == list(range(6000))
    assert [error["instance"] for error in errors] == [[1]]
    assert list((second.folder / "batch").iterdir()) == []


def test_a_job_whose_input_changed_meanwhile_fails(start_emulator, fitted):
    first = start_emulator()
    batches = Batches(first, registered(first, fitted / "add", containerSpec=SKLEARN))
    base = batches.put({"a.jsonl": "[1, 1]\n" * 6000})
    size = {"manualBatchTuningParameters": {"batchSize": 1}}
    name = batches.create(f"{base}/a.jsonl", **size)
    until(lambda: batches.get(name).get("completionStats"))
    first.kill()
    path = first.folder / "buckets" / base.removeprefix("gs://") / "a.jsonl"
    path.write_text("[2, 2]\n" * 6000)
    again = Batches(start_emulator(), batches.model)
    job = again.end(name)
    assert job["state"] == "JOB_STATE_FAILED"
    assert "changed while the job was interrupted" in job["error"]["message"]


def test_googles_own_client(add, monkeypatch):
    base = add.put({"a.jsonl": "[1, 2]\n[3, 4]\n", "b.csv": "a,b\n5,6\n"})
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", add.running.url)
    aiplatform.init(
        project="local", location="us-central1", staging_bucket="gs://local-bucket",
        credentials=add.session.credentials, api_endpoint=add.running.url, api_transport="rest",
    )  # fmt: skip
    job = aiplatform.BatchPredictionJob.create(
        job_display_name="sdk", model_name=f"{add.model}@1", gcs_source=[f"{base}/a.jsonl"],
        gcs_destination_prefix=f"{base}/out", machine_type="n1-standard-2", labels={"a": "b"},
        starting_replica_count=1, max_replica_count=1, batch_size=1, sync=False,
    )  # fmt: skip
    other = aiplatform.Model(add.model).batch_predict(
        job_display_name="sdk-csv", gcs_source=f"{base}/b.csv", instances_format="csv",
        gcs_destination_prefix=f"{base}/out", machine_type="n1-standard-2", sync=False,
    )  # fmt: skip
    job.wait()
    assert job.state == aiplatform.gapic.JobState.JOB_STATE_SUCCEEDED
    assert job.completion_stats.successful_count == 2
    blobs = {blob.name.rsplit("/", 1)[-1]: blob for blob in job.iter_outputs()}
    lines = blobs[RESULTS].download_as_text().splitlines()
    assert [round(json.loads(line)["prediction"]) for line in lines] == [21, 43]
    assert job.name in [found.name for found in aiplatform.BatchPredictionJob.list()]
    job.delete()
    other.wait()
    assert other.output_info.gcs_output_directory.startswith(f"{base}/out/prediction-")


@pytest.mark.soak
def test_a_job_survives_any_number_of_kills(start_emulator, fitted):
    """kill -9 at moments drawn beforehand: starting, scoring, ending; no row is lost or doubled."""
    draw, running = random.Random(11), start_emulator()
    batches = Batches(running, registered(running, fitted / "add", containerSpec=SKLEARN))
    rows = 60_000
    text = "".join(f"[{i}, 1]\n" if i % 1000 else "[]\n" for i in range(rows))
    base = batches.put({"a.jsonl": text})
    size = {"manualBatchTuningParameters": {"batchSize": 4}}
    name, seen, kills = batches.create(f"{base}/a.jsonl", **size), 0, 0
    while batches.get(name)["state"] not in ENDED:
        time.sleep(draw.uniform(0, 4))
        batches.running.kill()
        kills += 1
        out = running.folder / "buckets" / base.removeprefix("gs://") / "out"
        assert not out.exists() or len(list(next(out.iterdir()).iterdir())) == 2
        batches = Batches(start_emulator(), batches.model)
        stats = batches.get(name).get("completionStats", {})
        assert seen <= int(stats.get("successfulCount", 0))
        seen = int(stats.get("successfulCount", 0))
    assert kills > 3
    results, errors = batches.read(batches.get(name))
    assert [result["instance"][0] for result in results] == [i for i in range(rows) if i % 1000]
    assert len(errors) == rows // 1000


@pytest.mark.soak
def test_a_million_rows_in_flat_memory(emulator, saved_models):  # noqa: F811
    batches = Batches(
        emulator, register(emulator, saved_models / "one", f"m{uuid.uuid4().hex[:8]}")["model"]
    )
    bucket = emulator.folder / "buckets" / "local-bucket" / uuid.uuid4().hex[:8]
    bucket.mkdir()
    process, peaks = psutil.Process(emulator.process.pid), {}
    for rows in (50_000, 1_000_000):
        with open(bucket / f"{rows}.jsonl", "w") as file:
            file.writelines(f'{{"a": {i}, "b": 0}}\n' for i in range(rows))
        size = {"manualBatchTuningParameters": {"batchSize": 2048}}
        name = batches.create(f"gs://local-bucket/{bucket.name}/{rows}.jsonl", **size)
        seen = []

        def ended(name=name, seen=seen) -> bool:
            children = process.children(recursive=True)
            seen.append((process.memory_info().rss, sum(c.memory_info().rss for c in children)))
            return batches.get(name)["state"] in ENDED

        until(ended, 600)
        peaks[rows] = [max(values) for values in zip(*seen, strict=True)]
        job = batches.get(name)
        assert job["completionStats"]["successfulCount"] == str(rows)
        folder = emulator.folder / "buckets" / job["outputInfo"]["gcsOutputDirectory"][5:]
        with open(folder / RESULTS) as file:
            for i, line in enumerate(file):
                assert json.loads(line) == {"instance": {"a": i, "b": 0}, "prediction": 2.0 * i}
        assert i == rows - 1
    for small, large in zip(peaks[50_000], peaks[1_000_000], strict=True):
        assert large < small + 60e6, peaks
