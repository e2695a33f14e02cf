"""Training jobs: every replica is a process with the environment Vertex AI gives a container.

A small supervisor (replica.py) runs each one in its own session, so that a killed local cloud finds
its jobs again: DIR/jobs/JOB/TASK/ATTEMPT-RESTART-PREEMPTION/ holds spec.json, pid (locked while the
supervisor lives) and, at the end, exit.json. One thread watches; handlers only note what was asked
for, and `python -m helpers.emulator preempt` leaves the file DIR/jobs/JOB/TASK/preempt.
"""

import datetime
import fcntl
import json
import logging
import math
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from helpers.emulator.front import calls
from helpers.emulator.front.calls import ApiError, Call, Cloud, found, method, now
from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import buckets, builds, logs, operations
from helpers.emulator.services.projects import project_number
from helpers.emulator.state import StateError

log = logging.getLogger("helpers.emulator")

# Where a job can go from each state; a state that is not here is an end.
NEXT = {
    "QUEUED": {"PENDING", "CANCELLING"},
    "PENDING": {"RUNNING", "CANCELLING", "FAILED"},
    "RUNNING": {"CANCELLING", "SUCCEEDED", "FAILED"},
    "CANCELLING": {"CANCELLED", "SUCCEEDED", "FAILED"},  # a job may be faster than its cancel
}
# Exit codes after which the same run would end the same way (1: an exception, 2: bad arguments,
# 126-128: no such command, 139: segmentation fault); Google publishes no list. Others restart.
PERMANENT = {1, 2, 126, 127, 128, 139}
WORKER_RESTARTS, JOB_RESTARTS = 5, 3  # [D: training/understanding-training-service]
POOLS = ("chief", "worker", "ps", "evaluator")
AT_ONCE, POLL_S, STOP_GRACE_S, TIMEOUT = 8, 0.05, 5, "604800s"
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")  # nothing else of the server's environment
GONE = "ended without an exit code: it was killed from outside, or the machine restarted"
# Images whose work this machine's own Python and packages can do.
PYTHON_IMAGE = re.compile(
    r"((docker\.io/)?(library/)?(tensorflow/tensorflow|python)|[a-z]+-docker\.pkg\.dev/vertex-ai/"
    r"training/.+|gcr\.io/(cloud-aiplatform/training|deeplearning-platform-release)/.+)(:[\w.-]+)?"
)


@dataclass
class Replica:
    """One process of a job, and its tries."""

    home: Path
    pool: int
    index: int
    attempt: int = 0  # of the whole job
    restarts: int = 0  # of this worker, in this attempt
    preemptions: int = 0  # these are counted for the folder's name alone
    told: bool = False  # that its machine is taken back
    process: subprocess.Popen | None = None  # None: not started, or by an earlier local cloud

    @property
    def folder(self) -> Path:
        return self.home / f"{self.attempt}-{self.restarts}-{self.preemptions}"

    @property
    def mark(self) -> Path:
        """There from the moment its machine is to be taken back until it has another."""
        return self.home / "preempt"

    def find(self) -> bool:
        """Take up the last try that an earlier local cloud started, if there is one."""
        tries = [tuple(map(int, path.name.split("-"))) for path in self.home.glob("*-*-*")]
        self.attempt, self.restarts, self.preemptions = max(tries, default=(0, 0, 0))
        return bool(tries)

    def launch(self, spec: dict) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "spec.json").write_text(json.dumps(spec))
        program = [sys.executable, "-I", "-S", PROGRAMS / "replica.py", self.folder]
        with open(self.folder / "supervisor.log", "ab") as said:
            self.process = subprocess.Popen(
                program, env=_kept(), cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                start_new_session=True,
            )  # fmt: skip

    def again(self, **counted: int) -> None:
        """Start it as it was before: same name, same ports, same environment."""
        spec = json.loads((self.folder / "spec.json").read_text())
        for name, count in counted.items():
            setattr(self, name, count)
        if self.told:
            self.mark.unlink(missing_ok=True)
            self.told = False
        self.launch(spec)

    def pid(self) -> int | None:
        """The supervisor's, while it lives."""
        if self.process:
            return self.process.pid if self.process.poll() is None else None
        try:
            with open(self.folder / "pid") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return int((self.folder / "pid").read_text())
        except FileNotFoundError:
            pass
        return None

    def end(self) -> dict | None:
        """`{"code", "last"}`; None while it runs."""
        if self.pid():
            return None
        try:
            return json.loads((self.folder / "exit.json").read_text())
        except FileNotFoundError:
            return {"code": None, "last": ""}


@dataclass
class Run:
    """A job that has not ended."""

    cloud: Cloud
    name: str
    spec: dict
    replicas: list[Replica]
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
        """Write a new state if it can follow the present one; the job as it is now."""

        def change(job: dict) -> dict:
            if state not in NEXT.get(job["state"].removeprefix("JOB_STATE_"), ()):
                return job
            return job | {"state": f"JOB_STATE_{state}", "updateTime": now()} | fields

        return self.cloud.state.update(self.name, change)

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
        self.kill_at_s = time.monotonic() + (STOP_GRACE_S if _closing.is_set() else _grace_s() + 2)
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

    def say(self, text: str, severity: str = "INFO") -> None:
        logs.write(self.cloud, "ml_job", self.number, text.splitlines(), severity=severity)


_runs: dict[str, Run] = {}
_wake, _closing = threading.Event(), threading.Event()


# --- The service


@method("aiplatform.projects.locations.customJobs.create")
def create(call: Call) -> dict:
    name = f"{call.path['parent']}/customJobs/{call.state.next_id()}"
    return begin(call.cloud, name, call.body)


def begin(cloud: Cloud, name: str, body: dict) -> dict:
    """Queue a job; as it is now."""
    moment, output = now(), {"startTime", "endTime", "error"}
    job = {key: value for key, value in body.items() if key not in output}
    job |= {"name": name, "state": "JOB_STATE_QUEUED", "createTime": moment, "updateTime": moment}
    cloud.state.put("customJob", name, job, parent=name.partition("/customJobs/")[0])
    _runs[name] = _run_of(cloud, job)
    _wake.set()
    return job


@method("aiplatform.projects.locations.customJobs.get")
def get(call: Call) -> dict:
    return operations.shown(found(call, call.path["name"]))


@method("aiplatform.projects.locations.customJobs.list")
def listed(call: Call) -> dict:
    jobs = call.state.list("customJob", call.path["parent"])[::-1]
    return calls.page(call, [operations.shown(job) for job in jobs], "customJobs")


@method("aiplatform.projects.locations.customJobs.cancel")
def cancel(call: Call) -> dict:
    """Best effort: a job that has ended stays as it is."""
    found(call, call.path["name"])
    end(call.path["name"], "CANCELED")
    return {}


def end(name: str, message: str) -> None:
    """Ask a job to stop, if it runs."""
    run = _runs.get(name)
    if run and not run.asked:
        run.cancel(message)


@method("aiplatform.projects.locations.customJobs.delete")
def delete(call: Call) -> dict:
    name = call.path["name"]
    state = found(call, name)["state"]
    if state.removeprefix("JOB_STATE_") in NEXT:
        message = f"The CustomJob is in state {state}; cancel it, then delete it."
        raise ApiError(400, message, status="FAILED_PRECONDITION")
    call.state.delete(name)
    shutil.rmtree(home(call.cloud, name), ignore_errors=True)
    kind = "type.googleapis.com/google.cloud.aiplatform.v1.DeleteOperationMetadata"
    empty = {"@type": "type.googleapis.com/google.protobuf.Empty"}
    return operations.finished(call.cloud, name, empty, metadata={"@type": kind})


# --- The watcher


@calls.on_start
def adopt(cloud: Cloud) -> None:
    """Take up the jobs an earlier local cloud left running, and watch."""
    for job in cloud.state.list("customJob"):
        if job["state"].removeprefix("JOB_STATE_") in NEXT:
            run = _runs[job["name"]] = _run_of(cloud, job)
            for replica in run.replicas:
                run.started |= replica.find()
            if run.started:
                run.set_deadline(run.move("RUNNING", startTime=job.get("startTime") or now()))
            run.asked = job.get("_asked")
    threading.Thread(target=_watch, daemon=True, name="jobs").start()


@calls.on_stop
def stop(cloud: Cloud) -> None:
    """Jobs do not outlive a local cloud that is told to end."""
    _closing.set()
    for run in list(_runs.values()):
        run.cancel("CANCELED: the local cloud was stopped.")
        run.kill_at_s = min(run.kill_at_s, time.monotonic() + STOP_GRACE_S)
    give_up_s = time.monotonic() + 3 * STOP_GRACE_S
    while _runs and time.monotonic() < give_up_s:
        time.sleep(POLL_S)


@calls.on_busy
def busy(cloud: Cloud) -> bool:
    return bool(_runs)


def _watch() -> None:
    while True:
        for run in list(_runs.values()):
            try:
                _step(run)
            except Exception as error:
                log.exception("job %s", run.number)
                message = f"Internal error of the local cloud: {error!r}"
                run.stop("FAILED", {"code": 13, "message": message})
        _wake.wait(POLL_S if _runs else None)
        _wake.clear()


def _step(run: Run) -> None:
    """Move a job on by what its replicas did since the last look."""
    ends = [replica.end() for replica in run.replicas] if run.started else []
    if run.ending:
        if None not in ends:
            _finish(run)
        elif time.monotonic() > run.kill_at_s:
            run.signal(signal.SIGUSR1, run.replicas)
            if time.monotonic() > run.kill_at_s + 2:  # a supervisor hangs
                _kill(run.family)
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
            run.say(f"The machine of {name} is preempted in {_grace_s():g} s.", "WARNING")
            run.signal(signal.SIGTERM, [replica])
    if any(replica.pid() for replica in taken):
        return
    again = "Restarting the whole job" if _whole(run) else "Restarting it"
    for replica in taken:
        run.say(f"The replica {replica.home.name} was preempted. {again}.", "WARNING")
        if not _whole(run):
            replica.again(preemptions=replica.preemptions + 1)
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
        replica.again(restarts=count)
    elif again and replica.attempt < JOB_RESTARTS:
        count = f"{replica.attempt + 1} of {JOB_RESTARTS}"
        run.say(f"{message} Restarting the whole job, {count}.", "WARNING")
        run.stop("RESTART")
    else:
        run.stop("FAILED", {"code": 3, "message": f"{last} ({message})" if last else message})


def _begin(run: Run) -> None:
    run.move("PENDING")
    try:
        specs = _plan(run)
    except ApiError as error:
        run.ending = ("FAILED", error.rpc())
        return
    for replica, spec in zip(run.replicas, specs, strict=True):
        replica.launch(spec)
    run.set_deadline(run.move("RUNNING", startTime=now()))
    run.started = True


def _finish(run: Run) -> None:
    """Nothing runs any more: go to the end decided on."""
    state, error = run.ending
    _kill(run.family)
    run.family, run.ending = set(), None
    if state in ("RESTART", "PREEMPTED") and run.asked:
        state, error = "CANCELLED", run.asked
    elif state in ("RESTART", "PREEMPTED"):
        for replica in run.replicas:
            if state == "RESTART":
                replica.again(attempt=replica.attempt + 1, restarts=0)
            else:
                replica.again(preemptions=replica.preemptions + 1)
        return
    run.move(state, endTime=now(), **({"error": error} if error else {}))
    del _runs[run.name]


def _kill(family: set[psutil.Process]) -> None:
    for process in family:
        if process.is_running():  # psutil compares the start time
            process.kill()


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


# --- What a replica is given


def _plan(run: Run) -> list[dict]:
    """The supervisor's spec of every replica.

    Raises:
        ApiError: an image or a package can't be had.
    """
    addresses: dict[str, list[str]] = {}
    for replica, port in zip(run.replicas, _free_ports(len(run.replicas)), strict=True):
        addresses.setdefault(f"workerpool{replica.pool}", []).append(f"127.0.0.1:{port}")
    specs, said = [], {}
    for replica in run.replicas:
        pool = run.spec["workerPoolSpecs"][replica.pool]
        machine = pool.get("machineSpec", {}).get("machineType", "machine")
        said[f"{machine} is not emulated; this machine has {os.cpu_count()} cores."] = True
        task = pool.get("containerSpec") or pool["pythonPackageSpec"]
        image = _image(run.cloud, task.get("imageUri") or task["executorImageUri"])
        if not image.root:
            said[f"{image.base}: this machine's Python {sys.version.split()[0]} runs it."] = True
        env = _kept() | {
            key: ":".join(map(image.inside, value.split(":"))) for key, value in image.env.items()
        }
        env |= _environment(run, replica, addresses)
        pip = _own_pip(replica.home, env)
        if "containerSpec" in pool:
            commands = [_command(image, task)]
        else:
            commands = _package_commands(run.cloud, task, pip)
        env |= {var["name"]: _gcs(run.cloud, var.get("value", "")) for var in task.get("env", [])}
        specs.append({
            "commands": [[_gcs(run.cloud, word) for word in command] for command in commands],
            "env": env, "cwd": image.inside(image.workdir) if image.root else str(replica.home),
            "log": f"{logs.folder(run.cloud, 'ml_job', run.number) / replica.home.name}.jsonl",
            "grace_s": _grace_s(),
        })  # fmt: skip
    ignored = ", ".join(sorted(_without_effect(run.spec)))
    run.say("\n".join([*said, *([f"Accepted without effect: {ignored}."] if ignored else [])]))
    return specs


def _without_effect(spec: dict) -> set[str]:
    """What a job asks for besides that which counts here."""
    counts = {"workerPoolSpecs", "baseOutputDirectory", "scheduling", "timeout", "replicaCount",
              "restartJobOnWorkerRestart", "disableRetries", "machineSpec", "machineType",
              "containerSpec", "pythonPackageSpec"}  # fmt: skip
    asked = [spec, spec.get("scheduling", {})]
    for pool in spec["workerPoolSpecs"]:
        asked += [pool, pool.get("machineSpec", {})]
    return {name for part in asked for name, value in part.items() if value} - counts


def _environment(run: Run, replica: Replica, addresses: dict) -> dict[str, str]:
    """What Vertex AI sets. Source: [D: training/code-requirements, distributed-training]"""
    _, project, _, location, *_ = run.name.split("/")
    env = {
        "CLOUD_ML_JOB_ID": run.number, "CLOUD_ML_PROJECT_ID": project_number(project),
        "CLOUD_ML_REGION": location, "LOCAL_CLOUD_DIR": str(run.cloud.folder),
        "LOCAL_CLOUD_PROJECT": project, "LOCAL_CLOUD_GRACE_S": str(_grace_s()),
    }  # fmt: skip
    base = run.spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    names = {"MODEL": "model", "CHECKPOINT": "checkpoints", "TENSORBOARD_LOG": "logs"}
    env |= {f"AIP_{name}_DIR": f"{base}/{folder}/" for name, folder in names.items() if base}
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
    base = image.base if image else uri
    if PYTHON_IMAGE.fullmatch(base):
        return image or builds.Image("", "/", {}, [], [], uri)
    if image is None and builds.IMAGE.fullmatch(uri):
        raise ApiError(404, f"Image {uri} not found: nothing of that name was built and pushed.")
    raise ApiError(
        400, f"Without Docker, {base} can't be run here. Use an image based on python, "
        "tensorflow/tensorflow or Vertex AI's training images.",
    )  # fmt: skip


def _command(image: builds.Image, container: dict) -> list[str]:
    """`command` replaces the image's ENTRYPOINT and CMD, `args` its CMD."""
    command = container.get("command") or image.entrypoint
    rest = container.get("args") or ([] if container.get("command") else image.cmd)
    words = [image.inside(word) if image.root else word for word in [*command, *rest]]
    if not words:
        raise ApiError(400, f"No command specified, and {image.base} is not known to have one.")
    python = re.fullmatch(r"(/usr(/local)?/bin/)?python(3(\.\d+)?)?", words[0])
    return [sys.executable, *words[1:]] if python else words


def _own_pip(home: Path, env: dict[str, str]) -> str:
    """Give a replica a `pip` that leaves this machine's packages alone (job_pip.py)."""
    binaries, packages = home / "bin", str(home / "packages")
    binaries.mkdir(mode=0o700, parents=True, exist_ok=True)
    program = [sys.executable, "-I", str(PROGRAMS / "job_pip.py"), packages]
    for name in ("pip", "pip3"):
        (binaries / name).write_text(f'#!/bin/sh\nexec {shlex.join(program)} "$@"\n')
        (binaries / name).chmod(0o700)
    env["PATH"] = f"{binaries}:{env['PATH']}"
    env["PYTHONPATH"] = ":".join(filter(None, [packages, env.get("PYTHONPATH")]))
    env |= {"PIP_TARGET": packages, "PIP_NO_INDEX": "1"}  # what `python -m pip` goes by
    return str(binaries / "pip")


def _package_commands(cloud: Cloud, package: dict, pip: str) -> list[list[str]]:
    files = [str(buckets.path_of(cloud, uri)) for uri in package["packageUris"]]
    for uri, path in zip(package["packageUris"], files, strict=True):
        if not os.path.isfile(path):
            raise ApiError(404, f"The Python package {uri} does not exist.")
    module = [sys.executable, "-m", package["pythonModule"], *package.get("args", [])]
    return [[pip, "install", *files], module]


def _gcs(cloud: Cloud, text: str) -> str:
    """`/gcs/BUCKET/…`, the mounted view of buckets, as the plain files it stands for."""
    return re.sub(r"(?<![\w./-])/gcs/(?=[a-z0-9])", f"{cloud.folder}/buckets/", text)


def _kept() -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}"}


def _grace_s() -> float:
    """Google gives 30 seconds; tests give less."""
    return float(os.environ.get("LOCAL_CLOUD_GRACE_S", 30))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports
