"""Batch prediction jobs: files of rows go through a model version's server, one process a job.

A job writes below DIR/batch/JOB/ and keeps in the state how far it is, so that it goes on from
there after a kill. When all rows are done that folder becomes the output folder, in one step.
"""

import asyncio
import logging
import re
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import orjson

from helpers.emulator.front import calls
from helpers.emulator.front.calls import ApiError, Call, Cloud, method, not_emulated, now
from helpers.emulator.services import batch_rows, buckets, job_states, logs, registry
from helpers.emulator.services.serving import Answer, ModelServer

log = logging.getLogger("helpers.emulator")
ID = "aiplatform.projects.locations.batchPredictionJobs."
AT_ONCE, TRIES = 2, 5


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

    def write(self, state: str = "", **fields) -> dict:
        """Change the job; as it is now."""
        return job_states.change(self.cloud, self.name, state, **fields)

    def stop(self) -> None:
        if self.server:
            self.server.stopped = True

    def check(self) -> None:
        if self.asked or _closing.is_set():
            raise StoppedError

    def note(self, **fields) -> None:
        self.write(**fields)
        self.check()

    async def ready(self) -> None:
        try:
            await asyncio.wrap_future(self.server.ready())
        except (ApiError, ConnectionAbortedError):
            self.check()  # told to stop while it started
            raise

    async def post(self, body: bytes) -> Answer:
        """Ask the model server, started again when it died."""
        for attempt in range(TRIES):
            self.check()
            try:
                await self.ready()
                answer = await self.server.post(body, "application/json")
            except (OSError, EOFError) as error:
                said = repr(error)
                await asyncio.to_thread(self.server.wait_gone)
                continue
            if answer.status not in (429, 503):
                return answer
            said = answer.body.decode(errors="replace")
            await asyncio.sleep(0.1 * 2**attempt)
        raise ApiError(503, f"The model server does not stay up ({said}); see its log.")


_runs: dict[str, Run] = {}
_slots, _closing = threading.Semaphore(AT_ONCE), threading.Event()


# --- the service


@method(ID + "create")
def create(call: Call) -> dict:
    parent, body = call.path["parent"], call.body
    if "dedicatedResources" not in body:
        raise not_emulated("a batch prediction job without dedicated_resources")
    if body.get("instanceConfig") and body["inputConfig"]["instancesFormat"] != "jsonl":
        raise not_emulated("instance_config of other formats than jsonl")
    if not body["model"].startswith(f"{parent}/models/"):
        raise ApiError(400, f"The Model must be in the job's own location, {parent}.")
    model = registry.version(call.state, body["model"])
    name = f"{parent}/batchPredictionJobs/{call.state.next_id()}"
    about = {"modelVersionId": model["versionId"], "_displayed": model["displayName"]}
    job = job_states.keep(call.cloud, name, body, "PENDING", **about)
    _begin(Run(call.cloud, name))
    return job


def _cancel(cloud: Cloud, name: str) -> None:
    job_states.change(cloud, name, "CANCELLING")
    run = _runs.get(name)
    if run:
        run.asked = True
        run.stop()


job_states.serve("batchPredictionJobs", cancel=_cancel, forget=lambda cloud, job: None)


@calls.on_start
def adopt(cloud: Cloud) -> None:
    """Go on with the jobs an earlier local cloud left."""
    for job in cloud.state.list("batchPredictionJob"):
        if job_states.is_live(job):
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
        end = {"state": "FAILED", "error": job_states.broken(error)}
    run.write(**end, endTime=now())
    shutil.rmtree(run.folder, ignore_errors=True)
    del _runs[run.name]


async def _job(run: Run) -> dict:
    """Score everything; the fields the job ends with."""
    cloud, job = run.cloud, run.cloud.state.get(run.name)
    output = _output(cloud, job)
    if "_done" not in job:
        if "_files" not in job:
            files = batch_rows.find(cloud, job)
            total = batch_rows.count(files, job)
            job = run.write(_files=files, _total=total)
            machine = job["dedicatedResources"]["machineSpec"]["machineType"]
            said = f"{machine} is not emulated; one server on this machine scores {total} rows."
            logs.write(cloud, "ml_job", run.name, [said])
        elif not batch_rows.unchanged(job["_files"]):
            raise ApiError(400, "The input files were changed while the job was interrupted.")
        name = f"{job['model'].split('@')[0]}@{job['modelVersionId']}"
        model, account = registry.version(cloud.state, name), job.get("serviceAccount", "")
        logged = not job.get("disableContainerLogging")
        run.server = ModelServer(cloud, run.name, "0", model, account, logged=logged)
        try:
            run.check()
            await run.ready()
            job = run.write("RUNNING", startTime=job.get("startTime") or now())
            await batch_rows.score(job, run.folder, run.post, run.note)
        finally:
            run.server.stopped = True
            run.server.end()
        job = run.write(_done=True)
    if run.folder.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        run.folder.rename(output)
    where = output.relative_to(cloud.folder / "buckets").as_posix()
    end = {"state": "SUCCEEDED", "outputInfo": {"gcsOutputDirectory": f"gs://{where}"}}
    stats = job["completionStats"]
    if stats["successfulCount"] == "0" and stats["failedCount"] != "0":
        with open(output / batch_rows.NAMES[1], "rb") as file:
            error = orjson.loads(file.readline())["error"]
        message = f"None of {stats['failedCount']} rows succeeded. The first: {error['message']}"
        end |= {"state": "FAILED", "error": error | {"message": message}}
    return end


def _output(cloud: Cloud, job: dict) -> Path:
    """[P] `prediction-<model-display-name>-<timestamp>` below the prefix."""
    uri = job["outputConfig"]["gcsDestination"]["outputUriPrefix"].rstrip("/")
    bucket = uri.removeprefix("gs://").partition("/")[0]
    if cloud.state.get(f"b/{bucket}") is None:
        raise ApiError(404, f"The specified bucket does not exist: {bucket}.")
    name = re.sub(r"[^\w.-]", "_", job["_displayed"])
    return buckets.path_of(cloud, f"{uri}/prediction-{name}-{job['createTime'][:23]}Z")
