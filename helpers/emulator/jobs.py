"""Training jobs: every replica is a process with the environment Vertex AI gives a container.

A small supervisor (replica.py) runs each one in its own session, so that a killed local cloud finds
its jobs again: DIR/jobs/JOB/TASK/ATTEMPT-RESTART/ holds spec.json, pid (locked while the supervisor
lives) and, at the end, exit.json. One thread watches; handlers only note what was asked for.
"""

import datetime
import fcntl
import json
import logging
import math
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.emulator import buckets, builds, logs, operations
from helpers.emulator.calls import (
    ApiError,
    Call,
    Cloud,
    found,
    method,
    now,
    on_busy,
    on_start,
    on_stop,
    page,
)
from helpers.emulator.services import project_number

log = logging.getLogger("helpers.emulator")

# Where a job can go from each state; a state that is not here is an end.
NEXT = {
    "QUEUED": {"PENDING", "CANCELLING", "FAILED"},
    "PENDING": {"RUNNING", "CANCELLING", "FAILED"},
    "RUNNING": {"CANCELLING", "SUCCEEDED", "FAILED"},
    "CANCELLING": {"CANCELLED", "SUCCEEDED", "FAILED"},  # a job may be faster than its cancel
}
# Exit codes after which the same run would end the same way (1: an exception, 2: bad arguments,
# 126-128: no such command, 139: segmentation fault); Google publishes no list. Others restart.
PERMANENT = {1, 2, 126, 127, 128, 139}
WORKER_RESTARTS, JOB_RESTARTS = 5, 3  # [D: training/understanding-training-service]
POOLS = ("chief", "worker", "ps", "evaluator")
AT_ONCE = 8
POLL_S, REMEMBER_S, STOP_GRACE_S = 0.05, 2, 5
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")  # nothing else of the server's environment
CANCELLED = {"code": 1, "message": "CANCELED"}
GONE = "ended without an exit code: it was killed from outside, or the machine restarted"
# Images whose work this machine's own Python and packages can do.
PYTHON_IMAGE = re.compile(
    r"((docker\.io/)?(library/)?(tensorflow/tensorflow|python)|[a-z]+-docker\.pkg\.dev/vertex-ai/"
    r"training/.+|gcr\.io/(cloud-aiplatform/training|deeplearning-platform-release)/.+)(:[\w.-]+)?"
)
CHECK = """\
import sys
from importlib.metadata import PackageNotFoundError, distributions, version
from packaging.requirements import Requirement
wrong = []
for line in [line for made in distributions(path=sys.argv[1:]) for line in made.requires or []]:
    wanted = Requirement(line)
    try:
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            if not wanted.specifier.contains(version(wanted.name), prereleases=True):
                wrong.append(f"{line} (installed: {version(wanted.name)})")
    except PackageNotFoundError:
        wrong.append(f"{line} (not installed)")
if wrong:
    sys.exit("The package needs what this machine's Python does not have: " + "; ".join(wrong))
"""


@dataclass
class Replica:
    pool: int
    index: int
    attempt: int = 0  # of the whole job
    restarts: int = 0  # of this worker, in this attempt
    process: subprocess.Popen | None = None  # None: not started, or by an earlier local cloud

    @property
    def task(self) -> str:
        return f"workerpool{self.pool}-{self.index}"


@dataclass
class Run:
    """A job that has not ended."""

    name: str
    spec: dict
    replicas: list[Replica]
    deadline_s: float = math.inf  # Unix time
    started: bool = False
    asked: dict | None = None  # cancel: the error to end with
    ending: tuple[str, dict | None] | None = None  # all replicas are told to stop, then this
    kill_at_s: float = math.inf  # monotonic
    remembered_at_s: float = 0
    family: set[psutil.Process] = field(default_factory=set)

    @property
    def number(self) -> str:
        return self.name.rsplit("/", 1)[-1]


_runs: dict[str, Run] = {}
_wake = threading.Event()
_closing = threading.Event()


# --- The service


@method("aiplatform.projects.locations.customJobs.create")
def create(call: Call) -> dict:
    name = f"{call.path['parent']}/customJobs/{call.state.next_id()}"
    output = {"name", "state", "createTime", "startTime", "endTime", "updateTime", "error"}
    job = {key: value for key, value in call.body.items() if key not in output}
    moment = now()
    job |= {"name": name, "state": "JOB_STATE_QUEUED", "createTime": moment, "updateTime": moment}
    call.state.put("customJob", name, job, parent=call.path["parent"])
    _runs[name] = _run_of(job)
    _wake.set()
    return job


@method("aiplatform.projects.locations.customJobs.get")
def get(call: Call) -> dict:
    return operations.shown(found(call, call.path["name"]))


@method("aiplatform.projects.locations.customJobs.list")
def listed(call: Call) -> dict:
    jobs = call.state.list("customJob", call.path["parent"])[::-1]
    return page(call, [operations.shown(job) for job in jobs], "customJobs")


@method("aiplatform.projects.locations.customJobs.cancel")
def cancel(call: Call) -> dict:
    """Best effort: a job that has ended stays as it is."""
    found(call, call.path["name"])
    run = _runs.get(call.path["name"])
    if run and not run.asked:
        _cancel(call.cloud, run, CANCELLED)
    return {}


@method("aiplatform.projects.locations.customJobs.delete")
def delete(call: Call) -> dict:
    name = call.path["name"]
    state = found(call, name)["state"]
    if state.removeprefix("JOB_STATE_") in NEXT:
        message = f"The CustomJob is in state {state}; cancel it, then delete it."
        raise ApiError(400, message, status="FAILED_PRECONDITION")
    call.state.delete(name)
    shutil.rmtree(call.cloud.folder / "jobs" / name.rsplit("/", 1)[-1], ignore_errors=True)
    kind = "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata"
    empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    return operations.finished(call.cloud, name, empty, metadata={"@type": kind})


# --- The watcher


@on_start
def adopt(cloud: Cloud) -> None:
    """Take up the jobs an earlier local cloud left running, and watch."""
    for job in cloud.state.list("customJob"):
        if job["state"].removeprefix("JOB_STATE_") not in NEXT:
            continue
        run = _run_of(job)
        for replica in run.replicas:
            home = cloud.folder / "jobs" / run.number / replica.task
            tries = [[int(n) for n in path.name.split("-")] for path in home.glob("*-*")]
            if tries:
                replica.attempt, replica.restarts = max(tries)
                run.started = True
        if run.started:
            _move(cloud, run, "RUNNING", startTime=job.get("startTime", now()))
            _set_deadline(run, job.get("startTime", now()))
        if job["state"] == "JOB_STATE_CANCELLING":
            run.asked = job.get("_asked", CANCELLED)
        _runs[run.name] = run
    _closing.clear()
    threading.Thread(target=_watch, args=(cloud,), daemon=True, name="jobs").start()


@on_stop
def stop(cloud: Cloud) -> None:
    """Jobs do not outlive a local cloud that is told to end."""
    _closing.set()
    for run in list(_runs.values()):
        _cancel(cloud, run, CANCELLED | {"message": "CANCELED: the local cloud was stopped."})
        run.kill_at_s = min(run.kill_at_s, time.monotonic() + STOP_GRACE_S)
    give_up_s = time.monotonic() + 3 * STOP_GRACE_S
    while _runs and time.monotonic() < give_up_s:
        time.sleep(POLL_S)


@on_busy
def busy(cloud: Cloud) -> bool:
    return bool(_runs)


def _watch(cloud: Cloud) -> None:
    while _runs or not _closing.is_set():
        for run in list(_runs.values()):
            try:
                _step(cloud, run)
            except Exception as error:
                log.exception("job %s", run.number)
                message = f"Internal error of the local cloud: {error!r}"
                run.ending = ("FAILED", {"code": 13, "message": message})
                run.kill_at_s = min(run.kill_at_s, time.monotonic())
        _wake.wait(POLL_S if _runs else 1)
        _wake.clear()


def _step(cloud: Cloud, run: Run) -> None:
    """Move a job on by what its replicas did since the last look."""
    ends = [_end_of(cloud, run, replica) for replica in run.replicas] if run.started else []
    if run.ending:
        if None not in ends:
            _finish(cloud, run)
        elif time.monotonic() > run.kill_at_s:
            _kill(cloud, run)
        return
    if run.asked:
        _stop_all(cloud, run, "CANCELLED", run.asked)
    elif not run.started:
        used = sum(len(other.replicas) for other in _runs.values() if other.started)
        if not used or used + len(run.replicas) <= AT_ONCE:
            _begin(cloud, run)
    elif ends[0] and ends[0]["code"] == 0:  # the chief's success is the job's
        _stop_all(cloud, run, "SUCCEEDED")
    elif failed := [(r, end) for r, end in zip(run.replicas, ends, strict=True) if _bad(end)]:
        _recover(cloud, run, *failed[0])
    elif time.time() > run.deadline_s:
        # Public reports of jobs past their time show them cancelled; the reason is our own wording.
        limit = run.spec.get("scheduling", {}).get("timeout", "604800s")
        message = f"CANCELED: the job ran longer than its timeout of {limit}."
        _cancel(cloud, run, {"code": 4, "message": message})
    elif time.monotonic() > run.remembered_at_s + REMEMBER_S:
        _remember(cloud, run)


def _bad(end: dict | None) -> bool:
    return end is not None and end["code"] != 0


def _recover(cloud: Cloud, run: Run, replica: Replica, end: dict) -> None:
    """Restart the worker, then the whole job, unless the error is permanent."""
    code, scheduling = end["code"], run.spec.get("scheduling", {})
    said = f"exited with a non-zero status of {code}" if code is not None else GONE
    message = f"The replica {replica.task} {said}."
    again = code is not None and code not in PERMANENT and not scheduling.get("disableRetries")
    whole = scheduling.get("restartJobOnWorkerRestart", False)
    if again and not whole and replica.restarts < WORKER_RESTARTS:
        before = json.loads((_folder(cloud, run, replica) / "spec.json").read_text())
        replica.restarts += 1
        _say(cloud, run, f"{message} Restart {replica.restarts} of {WORKER_RESTARTS}.", "WARNING")
        _launch(cloud, run, replica, before)
    elif again and replica.attempt < JOB_RESTARTS:
        text = f"{message} Restarting the whole job, {replica.attempt + 1} of {JOB_RESTARTS}."
        _say(cloud, run, text, "WARNING")
        _stop_all(cloud, run, "RESTART")
    else:
        tail = f"{end['last'].strip()} ({message})" if end["last"] else message
        _stop_all(cloud, run, "FAILED", {"code": 3, "message": tail})


def _begin(cloud: Cloud, run: Run) -> None:
    _move(cloud, run, "PENDING")
    try:
        specs = _plan(cloud, run)
    except ApiError as error:
        run.ending = ("FAILED", error.rpc())
        return
    for replica, spec in zip(run.replicas, specs, strict=True):
        _launch(cloud, run, replica, spec)
    run.started = True
    job = _move(cloud, run, "RUNNING", startTime=now())
    _set_deadline(run, job.get("startTime", now()))


def _finish(cloud: Cloud, run: Run) -> None:
    """Nothing runs any more: go to the end decided on."""
    state, error = run.ending
    for process in run.family:
        if process.is_running() and process.pid != os.getpid():
            process.kill()
    run.family, run.ending, run.kill_at_s = set(), None, math.inf
    if state == "RESTART" and not run.asked:
        for replica in run.replicas:
            replica.attempt, replica.restarts, replica.process = replica.attempt + 1, 0, None
        for replica, spec in zip(run.replicas, _plan(cloud, run), strict=True):
            _launch(cloud, run, replica, spec)
        return
    if state == "RESTART":
        state, error = "CANCELLED", run.asked
    _move(cloud, run, state, endTime=now(), **({"error": error} if error else {}))
    del _runs[run.name]


def _stop_all(cloud: Cloud, run: Run, state: str, error: dict | None = None) -> None:
    run.ending = (state, error)
    run.kill_at_s = time.monotonic() + (STOP_GRACE_S if _closing.is_set() else _grace_s() + 2)
    _remember(cloud, run)
    _signal(cloud, run, "SIGTERM")


def _kill(cloud: Cloud, run: Run) -> None:
    """Past the grace time: the supervisors kill what is theirs; then nothing is asked any more."""
    _remember(cloud, run)
    _signal(cloud, run, "SIGUSR1")
    if time.monotonic() > run.kill_at_s + 2:
        for process in run.family:
            if process.is_running():
                process.kill()


def _cancel(cloud: Cloud, run: Run, error: dict) -> None:
    run.asked = error
    _move(cloud, run, "CANCELLING", _asked=error)
    _wake.set()


def _move(cloud: Cloud, run: Run, state: str, **fields) -> dict:
    """Write a new state if it can follow the present one; the job as it is now."""

    def change(job: dict) -> dict:
        if state not in NEXT.get(job["state"].removeprefix("JOB_STATE_"), ()):
            return job
        return job | {"state": f"JOB_STATE_{state}", "updateTime": now()} | fields

    return cloud.state.update(run.name, change)


# --- Processes


def _launch(cloud: Cloud, run: Run, replica: Replica, spec: dict) -> None:
    folder = _folder(cloud, run, replica)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    (folder / "spec.json").write_text(json.dumps(spec))
    program = [sys.executable, "-I", "-S", Path(__file__).with_name("replica.py"), folder]
    with open(folder / "supervisor.log", "ab") as said:
        replica.process = subprocess.Popen(
            program, env=_kept(), cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip


def _end_of(cloud: Cloud, run: Run, replica: Replica) -> dict | None:
    """How a replica ended, `{"code", "last"}`; None while its supervisor lives."""
    if _supervisor(cloud, run, replica):
        return None
    try:
        return json.loads((_folder(cloud, run, replica) / "exit.json").read_text())
    except FileNotFoundError:
        return {"code": None, "last": ""}


def _supervisor(cloud: Cloud, run: Run, replica: Replica) -> int | None:
    """The pid of a replica's supervisor while it lives."""
    if replica.process:
        return replica.process.pid if replica.process.poll() is None else None
    try:
        with open(_folder(cloud, run, replica) / "pid") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read())
    except FileNotFoundError:
        pass
    return None


def _signal(cloud: Cloud, run: Run, name: str) -> None:
    import signal

    for replica in run.replicas:
        if pid := _supervisor(cloud, run, replica):
            os.kill(pid, getattr(signal, name))


def _remember(cloud: Cloud, run: Run) -> None:
    """Note every process of a job (pid and start time), for those that lose their supervisor."""
    run.remembered_at_s = time.monotonic()
    for replica in run.replicas:
        if pid := _supervisor(cloud, run, replica):
            try:
                supervisor = psutil.Process(pid)
                run.family |= {supervisor, *supervisor.children(recursive=True)}
            except psutil.NoSuchProcess:
                continue


# --- What a replica is given


def _plan(cloud: Cloud, run: Run) -> list[dict]:
    """The supervisor's spec of every replica.

    Raises:
        ApiError: an image or a package can't be had.
    """
    pools = run.spec["workerPoolSpecs"]
    addresses: dict[str, list[str]] = {}
    for replica, port in zip(run.replicas, _free_ports(len(run.replicas)), strict=True):
        addresses.setdefault(f"workerpool{replica.pool}", []).append(f"127.0.0.1:{port}")
    said = [
        f"{pool.get('machineSpec', {}).get('machineType', 'machine')} × "
        f"{pool.get('replicaCount', '1')}: not emulated; this machine has {os.cpu_count()} cores."
        for pool in pools
        if pool
    ]
    specs = []
    for replica in run.replicas:
        pool = pools[replica.pool]
        container, package = pool.get("containerSpec"), pool.get("pythonPackageSpec", {})
        image = _image(cloud, (container or {}).get("imageUri") or package["executorImageUri"])
        if not image.root:
            said.append(f"{image.base}: this machine's Python {sys.version.split()[0]} runs it.")
        env = _kept() | {
            key: ":".join(map(image.inside, value.split(":"))) for key, value in image.env.items()
        }
        env |= _environment(cloud, run, replica, addresses)
        folder = _folder(cloud, run, replica)
        if container:
            commands = [_command(image, container)]
        else:
            target = str(folder / "packages")
            env["PYTHONPATH"] = target
            commands = _package_commands(cloud, package, target)
        given = (container or package).get("env", [])
        env |= {variable["name"]: _gcs(cloud, variable.get("value", "")) for variable in given}
        commands = [[_gcs(cloud, word) for word in command] for command in commands]
        where = image.inside(image.workdir) if image.root else str(folder)
        log_file = logs.folder(cloud, "ml_job", run.number) / f"{replica.task}.jsonl"
        specs.append(
            {"commands": commands, "env": env, "cwd": where, "log": str(log_file),
             "grace_s": _grace_s()}
        )  # fmt: skip
    if not run.replicas[0].attempt:
        _say(cloud, run, "\n".join(dict.fromkeys(said)))
    return specs


def _environment(cloud: Cloud, run: Run, replica: Replica, addresses: dict) -> dict[str, str]:
    """What Vertex AI sets. Source: [D: training/code-requirements, distributed-training]"""
    _, project, _, location, *_ = run.name.split("/")
    env = {
        "CLOUD_ML_JOB_ID": run.number, "CLOUD_ML_PROJECT_ID": project_number(project),
        "CLOUD_ML_REGION": location, "LOCAL_CLOUD_DIR": str(cloud.folder),
        "LOCAL_CLOUD_PROJECT": project, "LOCAL_CLOUD_GRACE_S": str(_grace_s()),
    }  # fmt: skip
    base = run.spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    if base:
        names = {"MODEL": "model", "CHECKPOINT": "checkpoints", "TENSORBOARD_LOG": "logs"}
        env |= {f"AIP_{name}_DIR": f"{base}/{folder}/" for name, folder in names.items()}
    about = {"environment": "cloud", "job": json.dumps(run.spec)}
    task = {"type": f"workerpool{replica.pool}", "index": replica.index}
    env["CLUSTER_SPEC"] = json.dumps({"cluster": addresses, "task": task} | about)
    if len(run.replicas) > 1:
        cluster = {POOLS[int(name[-1])]: hosts for name, hosts in addresses.items()}
        task = {"type": POOLS[replica.pool], "index": replica.index}
        env["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task} | about)
    return env


def _image(cloud: Cloud, uri: str) -> builds.Image:
    """The image of that address, or a stand-in (`root` "") where this Python can do its work."""
    image = builds.image(cloud, uri)
    if image is None and builds.IMAGE.fullmatch(uri) and not PYTHON_IMAGE.fullmatch(uri):
        raise ApiError(404, f"Image {uri} not found: nothing of that name was built and pushed.")
    if not PYTHON_IMAGE.fullmatch(image.base if image else uri):
        raise ApiError(
            400, f"Without Docker, {image.base if image else uri} can't be run here. Use an image "
            "based on python, tensorflow/tensorflow or Vertex AI's training images.",
        )  # fmt: skip
    return image or builds.Image("", "/", {}, [], [], uri)


def _command(image: builds.Image, container: dict) -> list[str]:
    """`command` replaces the image's ENTRYPOINT and CMD, `args` its CMD."""
    command = container.get("command") or image.entrypoint
    rest = container.get("args") or ([] if container.get("command") else image.cmd)
    words = [image.inside(word) if image.root else word for word in [*command, *rest]]
    if not words:
        raise ApiError(400, f"No command specified, and {image.base} is not known to have one.")
    python = re.fullmatch(r"(/usr(/local)?/bin/)?python(3(\.\d+)?)?", words[0])
    return [sys.executable, *words[1:]] if python else words


def _package_commands(cloud: Cloud, package: dict, target: str) -> list[list[str]]:
    files = [buckets.path_of(cloud, uri) for uri in package["packageUris"]]
    for uri, path in zip(package["packageUris"], files, strict=True):
        if not path.is_file():
            raise ApiError(404, f"The Python package {uri} does not exist.")
    install = "-m pip --disable-pip-version-check install --quiet --no-index --no-deps"
    options = ["--no-build-isolation", "--target", target]
    return [
        [sys.executable, *install.split(), *options, *map(str, files)],
        [sys.executable, "-c", CHECK, target],
        [sys.executable, "-m", package["pythonModule"], *package.get("args", [])],
    ]


def _gcs(cloud: Cloud, text: str) -> str:
    """`/gcs/BUCKET/…`, the mounted view of buckets, as the plain files it stands for."""
    head, sign, path = text.rpartition("=") if text.startswith("-") else ("", "", text)
    return f"{head}{sign}{cloud.folder}/buckets/{path[5:]}" if path.startswith("/gcs/") else text


def _run_of(job: dict) -> Run:
    pools = enumerate(job["jobSpec"]["workerPoolSpecs"])
    counts = [(i, int(pool.get("replicaCount", 1)) if pool else 0) for i, pool in pools]
    replicas = [Replica(pool, index) for pool, count in counts for index in range(count)]
    return Run(job["name"], job["jobSpec"], replicas)


def _set_deadline(run: Run, start_time: str) -> None:
    timeout_s = float(run.spec.get("scheduling", {}).get("timeout", "604800s").rstrip("s"))
    run.deadline_s = datetime.datetime.fromisoformat(start_time).timestamp() + timeout_s


def _folder(cloud: Cloud, run: Run, replica: Replica) -> Path:
    home = cloud.folder / "jobs" / run.number / replica.task
    return home / f"{replica.attempt}-{replica.restarts}"


def _say(cloud: Cloud, run: Run, text: str, severity: str = "INFO") -> None:
    logs.write(cloud, "ml_job", run.number, text.splitlines(), severity=severity)


def _kept() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}"}


def _grace_s() -> float:
    """Google gives 30 seconds; tests give less."""
    return float(os.environ.get("LOCAL_CLOUD_GRACE_S", 30))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
