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
from helpers.inputs.table import find_files
from helpers.prediction import encode_columns
from helpers.registry import Model

CHUNK_ROWS = 50_000


def batch_predict(
    session: Session,
    model: Model,
    source: pd.DataFrame | str | Path | list[str],
    *,
    machine_type: str = "n1-standard-2",
    replicas: int = 1,
    batch_size: int = 1024,
    labels: dict[str, str] | None = None,
    service_account: str = "",
) -> pd.DataFrame | str:
    """Score rows with a batch prediction job, and wait for it.

    Args:
        model: the version that scores, from `register` or `find_model`.
        source: a DataFrame; a .csv or .jsonl file, one column a model input; or gs:// addresses
            (one or a list, wildcards allowed) of jsonl files, one object a row.
        replicas: machines at the start.
        batch_size: rows the model is given at once.
        service_account: who the job runs as; "" takes the project's default.
    Returns:
        What `helpers.predict` gives for these rows, in their order; for gs:// addresses the folder
        of the result files, whose lines have no particular order.
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
    uris = source if isinstance(source, list) else [source]
    if isinstance(uris[0], str) and uris[0].startswith("gs://"):
        kind = "csv" if uris[0].endswith(".csv") else "jsonl"  # csv: for models that take arrays
        return _run(session, body | _input(uris, kind), None)
    with tempfile.TemporaryDirectory() as folder:
        # Results have no order: a row's number goes along beside its columns, and comes back.
        schema, file = model.instance_schema, Path(folder) / "rows.jsonl"
        key = next(k for k in ("row", "_row", "__row") if k not in schema["required"])
        index = _write(schema, _frames(source, schema), key, file)
        uri = storage.upload_file(session, file, f"{base_uri}/rows.jsonl")
        body["instanceConfig"] = {"instanceType": "object", "keyField": key}
        uri = _run(session, body | _input([uri], "jsonl"), len(index))
        storage.download_folder(session, uri, folder)
        return _read(model.prediction_schema, Path(folder), index, uri)


def _input(uris: list[str], kind: str) -> dict:
    return {"inputConfig": {"instancesFormat": kind, "gcsSource": {"uris": uris}}}


def _frames(source, schema: dict) -> Iterator[pd.DataFrame]:
    if isinstance(source, pd.DataFrame):
        for start in range(0, max(1, len(source)), CHUNK_ROWS):
            yield source[start : start + CHUNK_ROWS]
        return
    texts = [n for n, about in schema["properties"].items() if about["type"] == "string"]
    kinds = dict.fromkeys(texts, "string")  # "007" stays what it is
    paths = find_files(str(source))
    if not paths:
        raise NotFoundError(f"{source} does not exist; expected a file, or gs:// addresses.")
    for path in paths:
        if path.suffix == ".csv":
            yield from pd.read_csv(path, chunksize=CHUNK_ROWS, dtype=kinds)
        elif path.suffix == ".jsonl":
            yield from pd.read_json(path, lines=True, chunksize=CHUNK_ROWS, dtype=kinds)
        else:
            raise SettingError(f"{path.name} is neither .csv nor .jsonl; save it as one of them.")


def _write(schema: dict, frames: Iterator[pd.DataFrame], key: str, path: Path) -> pd.Index:
    """Rows as objects with their number; gives their index."""
    indexes, number = [], itertools.count()
    with open(path, "w") as file:
        for frame in frames:
            columns = encode_columns(schema, frame)
            names = [json.dumps(name).replace("%", "%%") for name in [*columns, key]]
            line = "{" + ", ".join(f"{name}: %s" for name in names) + "}\n"
            # A column at once is far faster than a row at once; no JSON text holds a line break.
            texts = [
                json.dumps(v, separators=("\n", ":"))[1:-1].split("\n") for v in columns.values()
            ]
            file.writelines(line % row for row in zip(*texts, number, strict=False))
            indexes.append(frame.index)
    return indexes[0].append(indexes[1:])


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


def _read(schema: dict, folder: Path, index: pd.Index, uri: str) -> pd.DataFrame:
    """The predictions by the rows' numbers, as `helpers.predict` gives them."""
    names = list(schema.get("properties", [schema["title"]]))
    columns, missing = {n: [None] * len(index) for n in names}, np.ones(len(index), bool)
    for path in sorted(folder.glob("prediction.results-*")):
        with open(path) as file:
            while lines := ",".join(itertools.islice(file, CHUNK_ROWS)):
                for found in json.loads(f"[{lines}]"):
                    row, answer = int(found["key"]), found["prediction"]
                    for n in names:
                        columns[n][row] = answer[n] if isinstance(answer, dict) else answer
                    missing[row] = False
    if missing.any():
        errors = "".join(p.read_text()[:2000] for p in sorted(folder.glob("prediction.errors*")))
        some = ", ".join(map(str, index[missing][:10])) + (", …" if missing.sum() > 10 else "")
        raise JobError(
            f"{missing.sum()} of {len(index)} rows failed: {some}. What the service said:\n"
            f"{errors or 'nothing'}\nThe other rows' results: {uri}"
        )
    about = schema.get("properties", {})
    numbers = [n for n in names if about.get(n, schema)["type"] == "number"]
    return pd.DataFrame(columns, index=index).astype(dict.fromkeys(numbers, "float64"))
