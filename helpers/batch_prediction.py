"""Score many rows as a batch prediction job: no endpoint needed, nothing left running."""

import itertools
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import Run, check, create, outcome
from helpers.cloud.links import console
from helpers.cloud.names import LABELS, slug
from helpers.errors import JobError, NotFoundError, SettingError
from helpers.inputs import pictures, requests, values
from helpers.inputs.answers import flat_frame
from helpers.inputs.signature import DEFAULT
from helpers.inputs.table import find_files
from helpers.registry import Model

CHUNK_ROWS = 50_000


def batch_predict(
    session: Session,
    model: Model,
    source,
    *,
    machine_type: str = "n1-standard-2",
    replicas: int = 1,
    batch_size: int = 1024,
    labels: dict[str, str] | None = None,
    service_account: str = "",
):
    """Score rows with a batch prediction job, and wait for it.

    Args:
        model: the version that scores, from `register` or `find_model`.
        source: what `helpers.predict` takes; a .csv or .jsonl file, one column or name a model
            input; a path of pictures (a folder, or one with a `*`); or gs:// addresses (one or a
            list, wildcards allowed) of jsonl files, one object a row, or of pictures.
        replicas: machines at the start.
        batch_size: rows the model is given at once.
        service_account: who the job runs as; "" takes the project's default.
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
    machines = {"machineSpec": {"machineType": machine_type}}
    body = {
        "displayName": name, "labels": (labels or {}) | LABELS, "model": model.resource_name,
        "outputConfig": {
            "predictionsFormat": "jsonl", "gcsDestination": {"outputUriPrefix": base_uri},
        },
        "dedicatedResources": machines | {"startingReplicaCount": replicas},
        "manualBatchTuningParameters": {"batchSize": batch_size},
    }  # fmt: skip
    if service_account:
        body["serviceAccount"] = service_account
    if (uris := _addresses(source)) and not pictures.are(uris):
        kind = "csv" if uris[0].endswith(".csv") else "jsonl"  # csv: for models that take arrays
        return _run(session, body | _input(uris, kind), None)
    with tempfile.TemporaryDirectory() as folder:
        # Results have no order: a row's number goes along beside its columns, and comes back.
        file = Path(folder) / "rows.jsonl"
        taken = model.instance_schema.get("required") or model.signatures[DEFAULT].inputs
        key = next(k for k in ("row", "_row", "__row") if k not in taken)
        index, form = _write(session, model, source, key, file)
        uri = storage.upload_file(session, file, f"{base_uri}/rows.jsonl")
        body["instanceConfig"] = {"instanceType": "object", "keyField": key}
        uri = _run(session, body | _input([uri], "jsonl"), len(index))
        storage.download_folder(session, uri, folder)
        return form(_predictions(Path(folder), index, uri))


def _addresses(source) -> list[str]:
    """The gs:// addresses that `source` is, if that is what it is."""
    uris = source if isinstance(source, list) else [source]
    named = bool(uris) and all(isinstance(u, str) and u.startswith("gs://") for u in uris)
    return uris if named else []


def _input(uris: list[str], kind: str) -> dict:
    return {"inputConfig": {"instancesFormat": kind, "gcsSource": {"uris": uris}}}


def _write(session: Session, model: Model, source, key: str, file: Path):
    """Write rows as objects with their number; their index, and what makes a result of answers."""
    schema = model.instance_schema
    names = pictures.find(source, session) if isinstance(source, str | Path | list) else []
    if names:
        source = [pictures.read(name, session) for name in names]
    elif requests.is_table(schema) and isinstance(source, str | Path | pd.DataFrame):
        index = _write_frames(model, _frames(source, schema), key, file)
        return index, lambda found: requests.table_of_rows(model.prediction_schema, found, index)
    elif isinstance(source, str | Path):
        source = values.from_file(_one_file(source))
    asked = requests.request(model, source)
    with open(file, "w") as sink:
        sink.writelines(requests.lines(asked.columns, key, itertools.count()))
    if names:
        index = pd.Index(names, name="file")
        return index, lambda found: flat_frame(asked.gather(found), index)
    return pd.RangeIndex(asked.rows), asked.gather


def _write_frames(model: Model, frames: Iterator[pd.DataFrame], key: str, file: Path) -> pd.Index:
    """A table's rows, a part at a time."""
    indexes, number = [], itertools.count()
    with open(file, "w") as sink:
        for frame in frames:
            asked = requests.request(model, frame)
            sink.writelines(requests.lines(asked.columns, key, number))
            indexes.append(frame.index)
    return indexes[0].append(indexes[1:])


def _frames(source, schema: dict) -> Iterator[pd.DataFrame]:
    if isinstance(source, pd.DataFrame):
        for start in range(0, max(1, len(source)), CHUNK_ROWS):
            yield source[start : start + CHUNK_ROWS]
        return
    texts = [n for n, about in schema["properties"].items() if about["type"] == "string"]
    kinds = dict.fromkeys(texts, "string")  # "007" stays what it is
    path = _one_file(source)
    if path.suffix == ".csv":
        yield from pd.read_csv(path, chunksize=CHUNK_ROWS, dtype=kinds)
    else:
        yield from pd.read_json(path, lines=True, chunksize=CHUNK_ROWS, dtype=kinds)


def _one_file(source) -> Path:
    paths = find_files(str(source))
    if not paths:
        raise NotFoundError(f"{source} does not exist; expected a file, or gs:// addresses.")
    if paths[0].suffix not in (".csv", ".jsonl"):
        raise SettingError(f"{paths[0].name} is neither .csv nor .jsonl; save it as one of them.")
    return paths[0]


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


def _predictions(folder: Path, index: pd.Index, uri: str) -> list:
    """The predictions in the order of the rows' numbers."""
    answers, missing = [None] * len(index), np.ones(len(index), bool)
    for path in sorted(folder.glob("prediction.results-*")):
        with open(path) as file:
            while lines := ",".join(itertools.islice(file, CHUNK_ROWS)):
                for found in json.loads(f"[{lines}]"):
                    row = int(found["key"])
                    answers[row], missing[row] = found["prediction"], False
    if missing.any():
        errors = "".join(p.read_text()[:2000] for p in sorted(folder.glob("prediction.errors*")))
        some = ", ".join(map(str, index[missing][:10])) + (", …" if missing.sum() > 10 else "")
        raise JobError(
            f"{missing.sum()} of {len(index)} rows failed: {some}. What the service said:\n"
            f"{errors or 'nothing'}\nThe other rows' results: {uri}"
        )
    return answers
