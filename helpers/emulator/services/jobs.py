"""Training jobs: every replica is a process with the environment Vertex AI gives a container.

One thread watches; handlers only note what was asked for, and `python -m helpers.emulator preempt`
leaves the file DIR/jobs/JOB/TASK/preempt.
"""

import datetime
import math
import shutil
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.emulator.front import callers, calls
from helpers.emulator.front.calls import ApiError, Call, Cloud, method, now
from helpers.emulator.services import job_plans, job_states, logs, nursery
from helpers.emulator.services.replicas import Replica, grace_s, kill
from helpers.emulator.state import StateError

# Exit codes after which the same run would end the same way (1: an exception, 2: bad arguments,
# 126-128: no such command, 139: segmentation fault); Google publishes no list. Others restart.
PERMANENT = {1, 2, 126, 127, 128, 139}
WORKER_RESTARTS, JOB_RESTARTS = 5, 3  # [D: training/understanding-training-service]
AT_ONCE, STOP_GRACE_S, TIMEOUT = 8, 5, "604800s"
GONE = "ended without an exit code: it was killed from outside, or the machine restarted"


@dataclass
class Run:
    """A job that has not ended."""

    cloud: Cloud
    name: str
    spec: dict
    replicas: list[Replica]
    waits: bool = False  # for what its programs import
    started: bool = False
    deadline_s: float = math.inf  # Unix time
    asked: dict | None = None  # cancel: the error to end with
    ending: tuple[str, dict | None] | None = None  # when all have stopped
    kill_at_s: float = math.inf  # monotonic
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def number(self) -> str:
        return self.name.rsplit("/", 1)[-1]

    def move(self, state: str, **fields) -> dict:
        """Write a new state; the job as it is now."""
        return job_states.change(self.cloud, self.name, state, **fields)

    def set_deadline(self, job: dict) -> None:
        limit = self.spec.get("scheduling", {}).get("timeout", TIMEOUT)
        start = datetime.datetime.fromisoformat(job.get("startTime") or now())
        self.deadline_s = start.timestamp() + float(limit.rstrip("s"))

    def cancel(self, message: str, code: int = 1) -> None:
        self.asked = {"code": code, "message": message}
        self.move("CANCELLING", _asked=self.asked)
        _wake.set()

    def stop(self, state: str, error: dict | None = None) -> None:
        """Ask every replica to stop; the job ends when they have."""
        self.ending = (state, error)
        self.kill_at_s = time.monotonic() + (STOP_GRACE_S if _closing.is_set() else grace_s() + 2)
        self.signal(signal.SIGTERM, self.replicas)

    def signal(self, number: int, replicas: list[Replica]) -> None:
        """To the supervisors; all they have started is noted by pid and start time."""
        for pid in filter(None, [replica.pid() for replica in replicas]):
            try:
                supervisor = psutil.Process(pid)
                self.family |= {supervisor, *supervisor.children(recursive=True)}
                supervisor.send_signal(number)
            except psutil.NoSuchProcess:
                continue

    def identify(self) -> callers.Caller:
        """Who its processes are when they call."""
        account = self.spec.get("serviceAccount", "")
        pids = lambda: filter(None, [replica.pid() for replica in self.replicas])  # noqa: E731
        return callers.issue(self.cloud, self.name, account, pids)

    def say(self, text: str, severity: str = "INFO") -> None:
        logs.write(self.cloud, "ml_job", self.name, text.splitlines(), severity=severity)


_runs: dict[str, Run] = {}
_wake, _closing = threading.Event(), threading.Event()


# --- The service


@method("aiplatform.projects.locations.customJobs.create")
def create(call: Call) -> dict:
    name = f"{call.path['parent']}/customJobs/{call.state.next_id()}"
    return begin(call.cloud, name, call.body)


def begin(cloud: Cloud, name: str, body: dict) -> dict:
    """Queue a job; as it is now."""
    job = job_states.keep(cloud, name, body, "QUEUED")
    _runs[name] = _run_of(cloud, job)
    _wake.set()
    return job


def end(name: str, message: str) -> None:
    """Ask a job to stop, if it runs."""
    run = _runs.get(name)
    if run and not run.asked:
        run.cancel(message)


def forget(cloud: Cloud, job: dict) -> None:
    """Remove what a job's processes left."""
    shutil.rmtree(home(cloud, job["name"]), ignore_errors=True)


job_states.serve("customJobs", cancel=lambda cloud, name: end(name, "CANCELED"), forget=forget)


# --- The watcher


@calls.on_start
def adopt(cloud: Cloud) -> None:
    """Take up the jobs an earlier local cloud left running, and watch."""
    for job in cloud.state.list("customJob"):
        if job_states.is_live(job):
            run = _runs[job["name"]] = _run_of(cloud, job)
            for replica in run.replicas:
                run.started |= replica.find()
            if run.started:
                run.identify()
                run.set_deadline(run.move("RUNNING", startTime=job.get("startTime") or now()))
            run.asked = job.get("_asked")
    job_states.watch(_runs, lambda name: _step(_runs[name]), _fail, _wake)


@calls.on_stop
def stop(cloud: Cloud) -> None:
    """Jobs do not outlive a local cloud that is told to end."""
    _closing.set()
    for run in list(_runs.values()):
        run.cancel("CANCELED: the local cloud was stopped.")
        run.kill_at_s = min(run.kill_at_s, time.monotonic() + STOP_GRACE_S)
    give_up_s = time.monotonic() + 3 * STOP_GRACE_S
    while _runs and time.monotonic() < give_up_s:
        time.sleep(job_states.POLL_S)


@calls.on_busy
def busy(cloud: Cloud) -> bool:
    return bool(_runs)


def _fail(name: str, error: Exception) -> None:
    _runs[name].stop("FAILED", job_states.broken(error))


def _step(run: Run) -> None:
    """Move a job on by what its replicas did since the last look."""
    ends = [replica.end() for replica in run.replicas] if run.started else []
    if run.ending:
        if None not in ends:
            _finish(run)
        elif time.monotonic() > run.kill_at_s:
            run.signal(signal.SIGUSR1, run.replicas)
            if time.monotonic() > run.kill_at_s + 2:  # a supervisor hangs
                kill(run.family)
    elif run.asked:
        run.stop("CANCELLED", run.asked)
    elif not run.started:
        used = sum(len(other.replicas) for other in _runs.values() if other.started)
        if not used or used + len(run.replicas) <= AT_ONCE:
            _begin(run)
    elif ends[0] and ends[0]["code"] == 0:  # the chief's success is the job's
        run.stop("SUCCEEDED")
    elif taken := [replica for replica in run.replicas if replica.mark.exists()]:
        _take_back(run, taken)
    elif any(end and end["code"] != 0 for end in ends):
        _recover(run, ends)
    elif time.time() > run.deadline_s:
        # Public reports of jobs past their time show them cancelled; the words are ours.
        limit = run.spec.get("scheduling", {}).get("timeout", TIMEOUT)
        run.cancel(f"CANCELED: the job ran longer than its timeout of {limit}.", code=4)


def preempt(folder: Path, job: str, task: str) -> None:
    """Ask for the machine of one replica to be taken back, as Google does it with spot machines.

    Raises:
        StateError: no such replica runs.
    """
    replica = Replica(folder / "jobs" / job / task, 0, 0)
    if not replica.find() or not replica.pid():
        raise StateError(f"No replica {task} of a job {job} runs in {folder}.")
    replica.mark.touch()


def _take_back(run: Run, taken: list[Replica]) -> None:
    """SIGTERM, SIGKILL after the grace time, another machine; no restart of those that count."""
    for replica in taken:
        if not replica.told:
            replica.told, name = True, replica.home.name
            run.say(f"The machine of {name} is preempted in {grace_s():g} s.", "WARNING")
            run.signal(signal.SIGTERM, [replica])
    if any(replica.pid() for replica in taken):
        return
    again = "Restarting the whole job" if _whole(run) else "Restarting it"
    for replica in taken:
        run.say(f"The replica {replica.home.name} was preempted. {again}.", "WARNING")
        if not _whole(run):
            replica.again(run.cloud, preemptions=replica.preemptions + 1)
    if _whole(run):
        run.stop("PREEMPTED")


def _whole(run: Run) -> bool:
    asked = run.spec.get("scheduling", {})  # disableRetries overrides the other
    return bool(asked.get("restartJobOnWorkerRestart") and not asked.get("disableRetries"))


def _recover(run: Run, ends: list[dict | None]) -> None:
    """Restart the worker, then the whole job, unless the error is permanent."""
    place = next(i for i, end in enumerate(ends) if end and end["code"] != 0)
    replica, code, last = run.replicas[place], ends[place]["code"], ends[place]["last"].strip()
    said = f"exited with a non-zero status of {code}" if code is not None else GONE
    message = f"The replica {replica.home.name} {said}."
    disabled = run.spec.get("scheduling", {}).get("disableRetries")
    again = code is not None and code not in PERMANENT and not disabled
    if again and not _whole(run) and replica.restarts < WORKER_RESTARTS:
        count = replica.restarts + 1
        run.say(f"{message} Restart {count} of {WORKER_RESTARTS}.", "WARNING")
        replica.again(run.cloud, restarts=count)
    elif again and replica.attempt < JOB_RESTARTS:
        count = f"{replica.attempt + 1} of {JOB_RESTARTS}"
        run.say(f"{message} Restarting the whole job, {count}.", "WARNING")
        run.stop("RESTART")
    else:
        run.stop("FAILED", {"code": 3, "message": f"{last} ({message})" if last else message})


def _begin(run: Run) -> None:
    try:
        if not run.waits:
            run.move("PENDING")
            run.waits = job_plans.wants_tensorflow(run.cloud, run.spec)
            if run.waits:
                _soon_served(run)
        if run.waits and nursery.importing():
            return
        specs, said = job_plans.plan(run.cloud, run.name, run.spec, run.replicas, run.identify())
    except ApiError as error:
        run.ending = ("FAILED", error.rpc())
        return
    run.say(said)
    for replica, spec in zip(run.replicas, specs, strict=True):
        replica.launch(run.cloud, spec)
    run.set_deadline(run.move("RUNNING", startTime=now()))
    run.started = True


def _finish(run: Run) -> None:
    """Nothing runs any more: go to the end decided on."""
    state, error = run.ending
    kill(run.family)
    run.family, run.ending = set(), None
    if state in ("RESTART", "PREEMPTED") and run.asked:
        state, error = "CANCELLED", run.asked
    elif state in ("RESTART", "PREEMPTED"):
        for replica in run.replicas:
            if state == "RESTART":
                replica.again(run.cloud, attempt=replica.attempt + 1, restarts=0)
            else:
                replica.again(run.cloud, preemptions=replica.preemptions + 1)
        return
    callers.revoke(run.cloud, run.name)
    for replica in run.replicas:
        shutil.rmtree(replica.home / "tmp", ignore_errors=True)
    if state == "SUCCEEDED" and run.waits:
        _soon_served(run)
    run.move(state, endTime=now(), **({"error": error} if error else {}))
    del _runs[run.name]


def _soon_served(run: Run) -> None:
    """A job with a folder for its results is likely to leave a model."""
    if "baseOutputDirectory" in run.spec:
        nursery.prepare(run.cloud)


def home(cloud: Cloud, name: str) -> Path:
    """Where a job's processes leave what they need."""
    return cloud.folder / "jobs" / name.rsplit("/", 1)[-1]


def _run_of(cloud: Cloud, job: dict) -> Run:
    folder = home(cloud, job["name"])
    replicas = [
        Replica(folder / f"workerpool{number}-{index}", number, index)
        for number, pool in enumerate(job["jobSpec"]["workerPoolSpecs"])
        for index in range(int(pool.get("replicaCount", 1)) if pool else 0)
    ]
    return Run(cloud, job["name"], job["jobSpec"], replicas)
