"""What every kind of job has: states, the methods besides create, a thread that moves it on."""

import logging
import threading
from collections.abc import Callable, Collection

from helpers.emulator.front.calls import Call, Cloud, found, method, now, refused, resources
from helpers.emulator.services import operations

log = logging.getLogger("helpers.emulator")
# From each of these a job goes on; from CANCELLING only to an end, which may be a success: a job
# may be faster than its cancel.
LIVE = {f"JOB_STATE_{state}" for state in ("QUEUED", "PENDING", "RUNNING", "CANCELLING")}
POLL_S = 0.05


def is_live(job: dict) -> bool:
    """Whether a job has not ended."""
    return job["state"] in LIVE


def keep(cloud: Cloud, name: str, body: dict, state: str, **fields) -> dict:
    """Keep a new job, as a request asked for it; as it is now."""
    parent, kind, _ = name.rsplit("/", 2)
    moment = now()
    job = body | {"name": name, "state": f"JOB_STATE_{state}", "createTime": moment}
    return cloud.state.put(kind[:-1], name, job | {"updateTime": moment} | fields, parent=parent)


def change(cloud: Cloud, name: str, state: str = "", **fields) -> dict:
    """Change a job that has not ended, in its state or otherwise; as it is now. One that is being
    cancelled says so until it ends."""

    def changed(job: dict) -> dict:
        if not is_live(job):
            return job
        wanted = f"JOB_STATE_{state}" if state else job["state"]
        if job["state"] == "JOB_STATE_CANCELLING" and wanted in LIVE:
            wanted = job["state"]
        return job | {"updateTime": now()} | fields | {"state": wanted}

    return cloud.state.update(name, changed)


def broken(error: Exception) -> dict:
    """The error that a job ends with when the local cloud itself fails."""
    return {"code": 13, "message": f"Internal error of the local cloud: {error!r}"}


def serve(
    kind: str, *, cancel: Callable[[Cloud, str], None], forget: Callable[[Cloud, dict], None],
    unlisted: str = "",
) -> None:  # fmt: skip
    """Serve get, list, cancel and delete of a kind such as `customJobs`.

    Args:
        cancel: asks the job of a name to stop, if it is under way.
        forget: removes what a job that is deleted has left.
        unlisted: a field that lists leave out.
    """
    prefix = f"aiplatform.projects.locations.{kind}"
    resources(prefix, kind[:-1], brief=lambda job: {k: v for k, v in job.items() if k != unlisted})

    @method(f"{prefix}.cancel")
    def cancelled(call: Call) -> dict:
        """Best effort: a job that has ended stays as it is."""
        found(call, call.path["name"])
        cancel(call.cloud, call.path["name"])
        return {}

    @method(f"{prefix}.delete")
    def delete(call: Call) -> dict:
        name = call.path["name"]
        job = found(call, name)
        if is_live(job):
            what = f"{kind[0].upper()}{kind[1:-1]} is in state {job['state']}"
            raise refused(f"The {what}; cancel it, then delete it.")
        forget(call.cloud, job)
        call.state.delete(name)
        # Batch prediction jobs have no operations of their own.
        batch = kind == "batchPredictionJobs"
        return operations.deleted(call, name.rpartition(f"/{kind}/")[0] if batch else name)


def watch(
    live: Collection[str], step: Callable[[str], None],
    fail: Callable[[str, Exception], None], wake: threading.Event,
) -> None:  # fmt: skip
    """Move every live job on, again and again, in a thread; `fail` ends one whose step raised."""

    def run() -> None:
        while True:
            for name in list(live):
                try:
                    step(name)
                except Exception as error:
                    log.exception("%s", name)
                    fail(name, error)
            wake.wait(POLL_S if live else None)
            wake.clear()

    threading.Thread(target=run, daemon=True, name="jobs").start()
