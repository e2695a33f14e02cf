"""Batch prediction jobs: files of rows go through a model version's server, one process a job.

A job writes below DIR/batch/JOB/ and keeps in the state how far it is, so that it goes on from
there after a kill. When all rows are done that folder becomes the output folder, in one step.
"""

import asyncio
import csv
import functools
import itertools
import json
import logging
import re
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson

from helpers.emulator import buckets, calls, logs, operations, registry
from helpers.emulator.calls import ApiError, Call, Cloud, found, method, now
from helpers.emulator.serving import Answer, ModelServer

log = logging.getLogger("helpers.emulator")
ID = "aiplatform.projects.locations.batchPredictionJobs."
ENDED = {"JOB_STATE_SUCCEEDED", "JOB_STATE_FAILED", "JOB_STATE_CANCELLED"}
NAMES = ("prediction.results-00000-of-00001", "prediction.errors_stats-00000-of-00001")
BATCH_SIZE = 64  # [P] ManualBatchTuningParameters.batch_size
# [P] "If predictions for significant portion of the instances fail, the job may finish without
# attempting predictions for all remaining instances": here, when none of so many has succeeded.
HOPELESS = 1000
LINE_BYTES = 10_000_000
AT_ONCE, IN_FLIGHT, TRIES, NOTED_S = 2, 4, 5, 0.5
Row = tuple[bytes, bytes]  # the instance as JSON; what names it in the output, `"instance":…`


class StoppedError(Exception):
    """The job was cancelled, or the local cloud leaves."""


@dataclass
class Run:
    """A job that has not ended."""

    cloud: Cloud
    name: str
    server: ModelServer | None = None
    asked: bool = False  # to cancel

    @property
    def folder(self) -> Path:
        return self.cloud.folder / "batch" / self.name.rsplit("/", 1)[-1]

    def write(self, **fields) -> dict:
        """Change the job unless it has ended; a cancelled one says so until it ends."""

        def change(job: dict) -> dict:
            kept = {"state": job["state"]} if job["state"] == "JOB_STATE_CANCELLING" else {}
            kept = {} if fields.get("state") in ENDED else kept
            return job if job["state"] in ENDED else job | fields | kept | {"updateTime": now()}

        return self.cloud.state.update(self.name, change)

    def stop(self) -> None:
        if self.server:
            self.server.stopped = True

    def check(self) -> None:
        if self.asked or _closing.is_set():
            raise StoppedError


_runs: dict[str, Run] = {}
_slots, _closing = threading.Semaphore(AT_ONCE), threading.Event()


# --- the service


@method(ID + "create")
def create(call: Call) -> dict:
    parent, body = call.path["parent"], call.body
    if "model" not in body or "dedicatedResources" not in body or body.get("generateExplanation"):
        raise ApiError(400, "Emulated are jobs with model and dedicated_resources set, and without "
                            "generate_explanation.")  # fmt: skip
    if body.get("instanceConfig") and body["inputConfig"]["instancesFormat"] != "jsonl":
        raise ApiError(400, "instance_config is emulated for jsonl alone.")
    if not body["model"].startswith(f"{parent}/models/"):
        raise ApiError(400, f"The Model must be in the job's own location, {parent}.")
    model, moment = registry.version(call.state, body["model"]), now()
    name = f"{parent}/batchPredictionJobs/{call.state.next_id()}"
    job = body | {
        "name": name, "modelVersionId": model["versionId"], "state": "JOB_STATE_PENDING",
        "createTime": moment, "updateTime": moment, "_displayed": model["displayName"],
    }  # fmt: skip
    call.state.put("batchPredictionJob", name, job, parent=parent)
    _begin(Run(call.cloud, name))
    return operations.shown(job)


@method(ID + "get")
def get(call: Call) -> dict:
    return operations.shown(found(call, call.path["name"]))


@method(ID + "list")
def listed(call: Call) -> dict:
    jobs = call.state.list("batchPredictionJob", call.path["parent"])[::-1]
    return calls.page(call, [operations.shown(job) for job in jobs], "batchPredictionJobs")


@method(ID + "cancel")
def cancel(call: Call) -> dict:
    """Best effort: a job that has ended stays as it is."""
    name = call.path["name"]
    found(call, name)
    run = _runs.get(name)
    if run:
        run.asked = True
        run.write(state="JOB_STATE_CANCELLING")
        run.stop()
    return {}


@method(ID + "delete")
def delete(call: Call) -> dict:
    name = call.path["name"]
    state = found(call, name)["state"]
    if state not in ENDED:
        message = f"The BatchPredictionJob is in state {state}; cancel it, then delete it."
        raise ApiError(400, message, status="FAILED_PRECONDITION")
    call.state.delete(name)
    empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    about = {"@type": registry.TYPE + "DeleteOperationMetadata"}
    return operations.finished(call.cloud, name, empty, metadata=about)


@calls.on_start
def adopt(cloud: Cloud) -> None:
    """Go on with the jobs an earlier local cloud left."""
    for job in cloud.state.list("batchPredictionJob"):
        if job["state"] not in ENDED:
            _begin(Run(cloud, job["name"], asked=job["state"] == "JOB_STATE_CANCELLING"))


@calls.on_stop
def pause(cloud: Cloud) -> None:
    """Jobs under way keep what they have and go on with the next start."""
    _closing.set()
    for run in list(_runs.values()):
        run.stop()
    deadline = time.monotonic() + 15
    while _runs and time.monotonic() < deadline:
        time.sleep(0.05)


@calls.on_busy
def busy(cloud: Cloud) -> bool:
    return bool(_runs)


# --- a job


def _begin(run: Run) -> None:
    _runs[run.name] = run
    threading.Thread(target=_work, args=(run,), daemon=True, name=run.name).start()


def _work(run: Run) -> None:
    try:
        while not _slots.acquire(timeout=0.2):
            run.check()
        try:
            end = asyncio.run(_job(run))
        finally:
            _slots.release()
    except StoppedError:
        if not run.asked:
            del _runs[run.name]
            return
        end = {"state": "CANCELLED", "error": {"code": 1, "message": "CANCELED"}}
    except ApiError as error:
        end = {"state": "FAILED", "error": error.rpc()}
    except Exception as error:
        log.exception("batch prediction job %s", run.name)
        said = f"Internal error of the local cloud: {error!r}"
        end = {"state": "FAILED", "error": {"code": 13, "message": said}}
    run.write(**end | {"state": f"JOB_STATE_{end['state']}", "endTime": now()})
    shutil.rmtree(run.folder, ignore_errors=True)
    del _runs[run.name]


async def _job(run: Run) -> dict:
    """Score everything; the fields the job ends with."""
    cloud, job = run.cloud, run.cloud.state.get(run.name)
    output = _output(cloud, job)
    if "_done" not in job:
        files = [
            file for uri in job["inputConfig"]["gcsSource"]["uris"] for file in _find(cloud, uri)
        ]
        if "_files" not in job:
            total = sum(_count(file[0], _is_csv(job)) for file in files)
            run.write(_files=files, _at=[0, 0, 0, 0], _total=total)
            machine = job["dedicatedResources"]["machineSpec"]["machineType"]
            said = (
                f"{machine} is not emulated; one model server on this machine scores {total} rows."
            )
            logs.write(cloud, "ml_job", run.folder.name, [said])
        elif files != job["_files"]:
            raise ApiError(400, "The input files were changed while the job was interrupted.")
        name = f"{job['model'].split('@')[0]}@{job['modelVersionId']}"
        server = ModelServer(cloud, run.name, "0", registry.version(cloud.state, name))
        run.server = server
        try:
            await _ready(run)
            job = run.write(state="JOB_STATE_RUNNING", startTime=job.get("startTime") or now())
            await _score(run, job)
        finally:
            server.stopped = True
            server.end()
        job = run.write(_done=True)
    if run.folder.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        run.folder.rename(output)
    where = output.relative_to(cloud.folder / "buckets").as_posix()
    end = {"state": "SUCCEEDED", "outputInfo": {"gcsOutputDirectory": f"gs://{where}"}}
    stats = job["completionStats"]
    if stats["successfulCount"] == "0" and stats["failedCount"] != "0":
        with open(output / NAMES[1], "rb") as file:
            error = orjson.loads(file.readline())["error"]
        message = f"None of the first {stats['failedCount']} rows succeeded: {error['message']}"
        end |= {"state": "FAILED", "error": error | {"message": message}}
    return end


class Output:
    """A job's two files, and how far it is; opened anew, they are as they were last noted."""

    def __init__(self, run: Run, job: dict):
        self.run, self.total, stats = run, job["_total"], job.get("completionStats", {})
        self.counts = [int(stats.get(key, 0)) for key in ("successfulCount", "failedCount")]
        self.place, self.noted_s = tuple(job["_at"][:2]), time.monotonic()
        run.folder.mkdir(parents=True, exist_ok=True)
        self.files = [(run.folder / name).open("ab") for name in NAMES]
        for file, size in zip(self.files, job["_at"][2:], strict=True):
            file.truncate(size)
            file.seek(size)

    @property
    def hopeless(self) -> bool:
        return not self.counts[0] and self.counts[1] >= HOPELESS

    def add(self, place: tuple[int, int], lines: tuple[list[bytes], list[bytes]]) -> None:
        self.place = place
        for i, part in enumerate(lines):
            self.counts[i] += len(part)
            self.files[i].write(b"".join(part))
        if time.monotonic() > self.noted_s + NOTED_S:
            self.note()

    def note(self) -> None:
        for file in self.files:
            file.flush()
        ok, bad = self.counts
        left = max(0, self.total - ok - bad)
        stats = {"successfulCount": ok, "failedCount": bad, "incompleteCount": left}
        self.run.write(
            _at=[*self.place, *(file.tell() for file in self.files)],
            completionStats={key: str(count) for key, count in stats.items()},
        )
        self.noted_s = time.monotonic()

    def close(self) -> None:
        for file in self.files:
            file.close()


async def _score(run: Run, job: dict) -> None:
    """Rows in, results and errors out, in order, at most IN_FLIGHT batches at once."""
    size = job.get("manualBatchTuningParameters", {}).get("batchSize") or BATCH_SIZE
    read, output, waiting = _reader(job), Output(run, job), deque()
    end = b"]}"
    if "modelParameters" in job:
        end = b'],"parameters":%b}' % orjson.dumps(job["modelParameters"])
    batches = _batches([file[0] for file in job["_files"]], output.place, size, _is_csv(job))
    try:
        while not output.hopeless:
            run.check()
            found = next(batches, None)
            if found:
                place, lines = found
                waiting.append((place, asyncio.ensure_future(_batch(run, lines, read, end))))
                await asyncio.sleep(0)  # it is sent
            if len(waiting) == IN_FLIGHT or not found:
                if not waiting:
                    break
                place, task = waiting.popleft()
                output.add(place, await task)
        output.note()
    finally:
        for _, task in waiting:
            task.cancel()
        output.close()


async def _batch(run: Run, lines: list[bytes], read: Callable, end: bytes) -> tuple[list, list]:
    """The lines for both files."""
    rows, errors = [], []
    for line in filter(bytes.strip, lines):
        try:
            rows.append(read(line))
        except (ValueError, KeyError, csv.Error) as error:
            shown = b'"instance":' + orjson.dumps(line.strip().decode(errors="replace"))
            errors.append(_failed(shown, f"The line can't be read: {error!r}"))
    results = []
    for (_, shown), answer in zip(
        rows, await _answers(run, rows, end) if rows else (), strict=True
    ):
        if isinstance(answer, str):
            errors.append(_failed(shown, answer))
        else:
            results.append(b'{%b,"prediction":%b}\n' % (shown, answer))
    return results, errors


async def _answers(run: Run, rows: list[Row], end: bytes) -> list[bytes | str]:
    """A prediction or what went wrong, for each row: a refused batch is halved until the row at
    fault stands alone."""
    answer = await _post(run, b'{"instances":[' + b",".join([sent for sent, _ in rows]) + end)
    predictions, said = [], answer.body.decode(errors="replace")
    if answer.status == 200:
        try:
            predictions = [orjson.dumps(p) for p in orjson.loads(answer.body)["predictions"]]
        except ValueError:  # NaN, Infinity
            predictions = [json.dumps(p).encode() for p in json.loads(said)["predictions"]]
    if len(predictions) == len(rows):
        return predictions
    if len(rows) == 1:
        return [f"The model server answered {answer.status}: {said[:1000]}"]
    half = len(rows) // 2
    return await _answers(run, rows[:half], end) + await _answers(run, rows[half:], end)


async def _post(run: Run, body: bytes) -> Answer:
    for attempt in range(TRIES):
        try:
            await _ready(run)
            answer = await run.server.post(body, "application/json")
        except (OSError, EOFError) as error:
            run.check()
            said = repr(error)
            await asyncio.to_thread(run.server.wait_gone)
            continue
        if answer.status not in (429, 503):
            return answer
        said = answer.body.decode(errors="replace")
        await asyncio.sleep(0.1 * 2**attempt)
    raise ApiError(503, f"The model server does not stay up ({said}); see its log.")


async def _ready(run: Run) -> None:
    try:
        started = run.server.ready()
        if not started.done():
            await asyncio.wrap_future(started)
        started.result()
    except (ApiError, ConnectionAbortedError):
        run.check()  # told to stop while it started
        raise


# --- files and rows


def _batches(files: list[str], place: tuple[int, int], size: int, header: bool) -> Iterator[tuple]:
    """From a place on: ((file, offset) of the batch's end, its lines)."""
    first, offset = place
    for number in range(first, len(files)):
        with open(files[number], "rb") as file:
            file.seek(offset)
            if header and not offset:
                file.readline(LINE_BYTES)
            lines = iter(functools.partial(file.readline, LINE_BYTES), b"")
            while batch := list(itertools.islice(lines, size)):
                if any(len(line) == LINE_BYTES for line in batch):
                    raise ApiError(400, f"A line has more than {LINE_BYTES} bytes.")
                yield (number, file.tell()), batch
        offset = 0


def _reader(job: dict) -> Callable[[bytes], Row]:
    """What makes a row of a line; it raises ValueError, KeyError or csv.Error."""
    about = job.get("instanceConfig", {})
    if _is_csv(job):  # quoted is text, the rest numbers [D: predictions/get-batch-predictions]
        return _csv_row
    if not about:
        return _json_row
    key, kind = about.get("keyField"), about.get("instanceType")
    wanted, unwanted = about.get("includedFields"), {key, *about.get("excludedFields", [])}

    def row(line: bytes) -> Row:
        found = orjson.loads(line)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        shown = b'"instance":' + line.strip()
        if key:
            shown = b'"key":' + orjson.dumps(found[key])
        names = wanted or [name for name in found if name not in unwanted]
        sent = {name: found[name] for name in names}
        return orjson.dumps([*sent.values()] if kind == "array" else sent), shown

    return row


def _json_row(line: bytes) -> Row:
    orjson.loads(line)
    line = line.strip()
    return line, b'"instance":' + line


def _csv_row(line: bytes) -> Row:
    reader = csv.reader([line.decode()], quoting=csv.QUOTE_NONNUMERIC, strict=True)
    row = orjson.dumps(next(reader))
    return row, b'"instance":' + row


def _failed(shown: bytes, message: str) -> bytes:
    """[P] GcsDestination of the output: the instance, then code and message."""
    error = orjson.dumps({"code": 3, "message": message})
    return b'{%b,"error":%b}\n' % (shown, error)


def _is_csv(job: dict) -> bool:
    return job["inputConfig"]["instancesFormat"] == "csv"


def _count(path: str, header: bool) -> int:
    with open(path, "rb") as file:
        return max(0, sum(1 for line in file if not line.isspace()) - header)


def _find(cloud: Cloud, uri: str) -> list[list]:
    """[path, size, time] of the objects an address with wildcards means, by name.

    Raises:
        ApiError: there are none.
    """
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    top = buckets.path_of(cloud, f"gs://{bucket}")
    below = re.match(r"[^*?\[]*", name)[0].rpartition("/")[0]
    marks = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*|\*|\?|\[[^\]]+\])", name)
    wanted = re.compile("".join(
        marks.get(part) or (re.escape(part) if i % 2 == 0 else part) for i, part in enumerate(parts)
    ))  # fmt: skip
    if below == name.rpartition("/")[0] and len(parts) == 1:
        found = [path for path in [buckets.path_of(cloud, uri)] if path.is_file()]
    else:
        folder = buckets.path_of(cloud, f"gs://{bucket}/{below}")
        found = [p for p in sorted(folder.rglob("*")) if p.is_file()
                 and wanted.fullmatch(p.relative_to(top).as_posix())]  # fmt: skip
    if not found:
        raise ApiError(404, f"There are no files at {uri}.")
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found]


def _output(cloud: Cloud, job: dict) -> Path:
    """[P] `prediction-<model-display-name>-<timestamp>` below the prefix."""
    uri = job["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
    bucket = uri.removeprefix("gs://").partition("/")[0]
    if cloud.state.get(f"b/{bucket}") is None:
        raise ApiError(404, f"The specified bucket does not exist: {bucket}.")
    name = re.sub(r"[^\w.-]", "_", job["_displayed"])
    return buckets.path_of(cloud, f"{uri}/prediction-{name}-{job['createTime'][:23]}Z")
