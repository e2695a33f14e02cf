"""Batch prediction by the public names: frames, files, addresses in; the same answers out."""

import json
import time
import uuid

import pandas as pd
import pytest
from google.cloud.aiplatform_v1 import types
from google.protobuf import json_format

import helpers
from helpers import storage
from helpers.cloud.client import Session
from helpers.errors import CloudError, DataError, JobError, NotFoundError, SchemaError
from helpers.inputs import csv_file, row_files
from helpers.registry import Model
from tests.emulator.conftest import until
from tests.rooms import rooms

ROWS = rooms()[["size", "kind"]][80:]


@pytest.fixture
def model(session, artifact) -> Model:
    """A version that takes a number and a text."""
    return helpers.register(session, artifact(), name=f"b{uuid.uuid4().hex[:6]}")


def answers(trained, name: str = "model") -> pd.DataFrame:
    """What the saved model itself said to the test rows."""
    frame = pd.read_json(trained / f"{name}-answers.json")
    return frame.set_index(ROWS.index)


def jobs_of(session, model: Model) -> list[dict]:
    api = session.service("aiplatform").projects().locations().batchPredictionJobs()
    found = session.list(api, "batchPredictionJobs", parent=session.parent)
    return [job for job in found if job["model"] == model.resource_name]


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(found, expected, rtol=1e-4, check_index_type=False)


def test_a_frame_keeps_its_order_and_index(session, model, trained, capsys):
    """Gaps, an order of columns and names of rows that are nobody's default."""
    names = [f"row {i}" for i in range(len(ROWS))][::-1]
    frame = ROWS.set_index(pd.Index(names, name="which"))[["kind", "size"]]
    given = {"machine_type": "n1-standard-4", "labels": {"phase": "test"}}
    found = helpers.batch_predict(session, model, frame, batch_size=7, **given)
    same(found, answers(trained).set_index(frame.index))
    (job,) = jobs_of(session, model)
    fitting = types.BatchPredictionJob.pb()()  # strict in every name and type
    json_format.ParseDict(job, fitting, ignore_unknown_fields=False)
    assert job["modelVersionId"] == model.version
    machines = {"machineSpec": {"machineType": "n1-standard-4"}, "startingReplicaCount": 1}
    assert job["dedicatedResources"] == machines
    assert job["labels"].items() > {"phase": "test"}.items()
    assert job["manualBatchTuningParameters"] == {"batchSize": 7}
    assert "SUCCEEDED" in capsys.readouterr().out


def test_classes_come_with_their_probabilities(session, artifact, trained):
    model = helpers.register(session, artifact("numbers"), name=f"b{uuid.uuid4().hex[:6]}")
    frame = rooms()[80:].assign(two=lambda f: (f["kind"] == "b").astype(float))[["size", "two"]]
    found = helpers.batch_predict(session, model, frame)
    same(found, answers(trained, "numbers"))


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_file_is_read_in_parts(session, model, trained, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(row_files, "CHUNK_ROWS", 6)
    monkeypatch.setattr(csv_file, "CELLS", 6)
    monkeypatch.setattr(csv_file, "LEAST", 6)
    path = tmp_path / f"rows.{kind}"
    if kind == "csv":
        ROWS.to_csv(path, index=False)
    else:
        ROWS.to_json(path, orient="records", lines=True)
    found = helpers.batch_predict(session, model, str(path))
    same(found, answers(trained).reset_index(drop=True))


def test_addresses_give_the_folder_of_the_results(session, model, trained, capsys):
    base = f"gs://{session.bucket}/{uuid.uuid4().hex[:8]}"
    lines = [json.dumps({"size": i, "kind": "a"}) for i in range(5)] + ['{"size": 1}']
    for i, line in enumerate(lines):
        storage.write_bytes(session, line.encode(), f"{base}/rows-{i}.jsonl")
    folder = helpers.batch_predict(session, model, f"{base}/rows-*.jsonl")
    content = storage.read_bytes(session, f"{folder}prediction.results-00000-of-00001")
    found = [json.loads(line) for line in content.splitlines()]
    assert [line["instance"]["size"] for line in found] == list(range(5))
    assert f"1 rows failed; see {folder}" in capsys.readouterr().out


def test_what_does_not_fit_is_refused_before_anything_is_made(session, model, tmp_path):
    (tmp_path / "rows.parquet").write_bytes(b"")
    bad = tmp_path / "rows.csv"
    ROWS.assign(size="big").to_csv(bad, index=False)
    for source, error, said in [
        (ROWS[:0], SchemaError, "no rows"),
        (ROWS.drop(columns="kind"), SchemaError, '"kind" is missing'),
        (bad, SchemaError, "'big' in row 0; expected a number"),
        (ROWS[["size", "kind", "kind"]], SchemaError, 'has 2 columns "kind"'),
        (tmp_path / "rows.parquet", DataError, "is empty"),
        (str(tmp_path / "none.csv"), NotFoundError, "no such file"),
    ]:
        with pytest.raises(error, match=said):
            helpers.batch_predict(session, model, source)
    assert jobs_of(session, model) == []
    assert not storage.list_uris(session, f"gs://{session.bucket}/batch/batch-{model.name}")


def test_failures_are_told_in_the_services_words(session, artifact, model):
    with pytest.raises(JobError, match="failed: There are no files at gs://") as failure:
        helpers.batch_predict(session, model, [f"gs://{session.bucket}/none-*.jsonl"])
    assert failure.value.job["state"] == "JOB_STATE_FAILED"
    # The model's own description lies: it does not take null.
    uri = artifact()
    about = f"{uri}1/assets.extra/instance.yaml"
    schema = json.loads(storage.read_bytes(session, about))
    schema["x-missing"]["number"] = None
    storage.write_bytes(session, json.dumps(schema).encode(), about)
    lying = helpers.register(session, uri, name=model.name)
    rows = ROWS.set_index(ROWS.index + 1000)
    with pytest.raises(JobError, match=r"1 of 20 rows failed: 1090\. (.|\n)*answered 400"):
        helpers.batch_predict(session, lying, rows)


def test_an_interrupt_cancels_the_job_that_bills(session, model, monkeypatch):
    bills = []

    def interrupt(seconds: float) -> None:
        bills.append(helpers.costs(session))
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    with pytest.raises(KeyboardInterrupt):
        helpers.batch_predict(session, model, ROWS)
    monkeypatch.undo()
    assert "1 × n1-standard-2" in set(bills[0].query("what == 'batch prediction'")["machine"])
    until(lambda: jobs_of(session, model)[0]["state"] == "JOB_STATE_CANCELLED")


def test_a_lost_answer_makes_no_second_job(session, model, monkeypatch):
    call, lost = Session.call, []

    def losing(self, request, **options):
        answer = call(self, request, **options)
        if request.methodId.endswith("batchPredictionJobs.create") and not lost:
            lost.append(answer)
            raise CloudError("connection reset", method=request.methodId)
        return answer

    monkeypatch.setattr(Session, "call", losing)
    monkeypatch.setattr("helpers.cloud.client.pause", lambda *_: None)
    with pytest.raises(JobError, match="There are no files"):
        helpers.batch_predict(session, model, f"gs://{session.bucket}/none.jsonl")
    assert len(lost) == len(jobs_of(session, model)) == 1
