"""Score many rows as a batch prediction job: no endpoint needed, nothing left running."""

import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import ClassVar

from tqdm import tqdm

from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import Run, check, create, outcome
from helpers.cloud.links import console
from helpers.cloud.names import LABELS, slug
from helpers.errors import JobError
from helpers.inputs import numbered_rows, picture_files
from helpers.registry import Model


def batch_predict(
    session: Session,
    model: Model,
    source,
    *,
    machine_type: str = "n1-standard-2",
    batch_size: int = 1024,
    labels: dict[str, str] | None = None,
):
    """Score rows with a batch prediction job, and wait for it.

    Args:
        model: the version that scores, from `register` or `find_model`.
        source: what `helpers.predict` takes, but no NaN for a model that is none of a table; a
            file of rows as `predict_file` takes it; a path of pictures (a folder, or one with a
            `*`); or gs:// addresses (one or a list, wildcards allowed) of jsonl files, one object
            a row, or of pictures.
        batch_size: rows the model is given at once.
    Returns:
        What `helpers.predict` gives for these rows, in their order; of pictures a frame with their
        names as its index; for other gs:// addresses the folder of the result files, whose lines
        have no particular order.
    Raises:
        SchemaError: a column or a value does not fit; nothing was created.
        JobError: the job failed, or rows of it did: their names and the service's words.
    Source: REST v1 projects.locations.batchPredictionJobs.create
    """
    check(machine_type, labels or {})
    name = slug(model.name, 80)
    name = f"batch-{name}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{uuid.uuid4().hex[:6]}"
    base_uri = f"gs://{session.bucket}/batch/{name}"
    body = {
        "displayName": name, "labels": (labels or {}) | LABELS, "model": model.resource_name,
        "outputConfig": {
            "predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": base_uri},
        },
        "dedicatedResources": {
            "machineSpec": {"machineType": machine_type}, "startingReplicaCount": 1,
        },
        "manualBatchTuningParameters": {"batchSize": batch_size},
    }  # fmt: skip
    if (uris := _addresses(source)) and not picture_files.are(uris):
        kind = "csv" if uris[0].endswith(".csv") else "jsonl"  # csv: for models that take arrays
        return _run(session, body | _input(uris, kind), None)
    with tempfile.TemporaryDirectory() as folder:
        file, key = Path(folder, "rows.jsonl"), numbered_rows.key_for(model)
        index, form = numbered_rows.write(session, model, source, key, file)
        uri = storage.upload_file(session, file, f"{base_uri}/rows.jsonl")
        body["instanceConfig"] = {"instanceType": "object", "keyField": key}
        uri = _run(session, body | _input([uri], "jsonl"), len(index))
        storage.download_folder(session, uri, folder)
        return form(numbered_rows.read(Path(folder), index, uri))


def _addresses(source) -> list[str]:
    """The gs:// addresses that `source` is, if that is what it is."""
    uris = source if isinstance(source, list) else [source]
    named = bool(uris) and all(isinstance(u, str) and u.startswith("gs://") for u in uris)
    return uris if named else []


def _input(uris: list[str], kind: str) -> dict:
    return {"inputConfig": {"instancesFormat": kind, "gcsSource": {"uris": uris}}}


class Batch(Run):
    """A batch prediction job."""

    kind: ClassVar[str] = "batchPredictionJobs"


def _run(session: Session, body: dict, rows: int | None) -> str:
    """Create the job and follow it to its end (an interrupt cancels it); its output's folder."""
    batch = Batch(session, create(session, Batch.kind, body))
    print(f"Batch prediction: {console(session, 'batch', batch.number)}")
    with tqdm(total=rows, desc="rows", unit="row", unit_scale=True, file=sys.stdout) as bar:
        try:
            for job in batch.follow():
                stats = {k: int(v) for k, v in job.get("completionStats", {}).items()}
                failed = stats.get("failedCount", 0)
                done = stats.get("successfulCount", 0) + failed
                if rows is None and stats.get("incompleteCount", -1) >= 0:
                    bar.total = done + stats["incompleteCount"]
                if done > bar.n:
                    bar.update(done - bar.n)
        except KeyboardInterrupt:
            batch.cancel()
            raise
    folder = job.get("outputInfo", {}).get("gcsOutputDirectory", "").rstrip("/") + "/"
    if job["state"] not in ("JOB_STATE_SUCCEEDED", "JOB_STATE_PARTIALLY_SUCCEEDED"):
        state, reason = outcome(job)
        raise JobError(f"Batch prediction job {batch.number} {state}: {reason}", job)
    if failed and rows is None:
        print(f"{failed} rows failed; see {folder}prediction.errors_stats-*")
    return folder
