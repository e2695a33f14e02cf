"""One process of a training job, and its tries; when it is started again jobs.py decides.

A small supervisor (servers/replica.py) runs each one in its own session, so that a killed local
cloud finds its jobs again: DIR/jobs/JOB/TASK/ATTEMPT-RESTART-PREEMPTION/ holds spec.json, pid
(locked while the supervisor lives) and, at the end, exit.json.
"""

import contextlib
import fcntl
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import psutil

from helpers.emulator.front.calls import Cloud
from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import nursery

KILL_S = 5  # a process that the system can't end keeps nobody waiting for longer
KEPT = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")  # nothing else of the server's environment


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
    # None: not started, or by an earlier local cloud
    process: subprocess.Popen | nursery.Forked | None = None

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

    def launch(self, cloud: Cloud, spec: dict) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.folder / "spec.json").write_text(json.dumps(spec))
        words = [sys.executable, "-I", "-S", str(PROGRAMS / "replica.py"), str(self.folder)]
        program = {"command": words, "env": kept(), "cwd": "/", "supervises": self.folder}
        with open(self.folder / "supervisor.log", "ab") as said:
            if spec.get("fork"):
                self.process = nursery.supervise(cloud, program, said.fileno())
            if self.process is None:
                self.process = subprocess.Popen(
                    words, env=kept(), cwd="/", stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                    start_new_session=True,
                )  # fmt: skip

    def again(self, cloud: Cloud, **counted: int) -> None:
        """Start it as it was before: same name, same ports, same environment."""
        spec = json.loads((self.folder / "spec.json").read_text())
        for name, count in counted.items():
            setattr(self, name, count)
        if self.told:
            self.mark.unlink(missing_ok=True)
            self.told = False
        self.process = None
        self.launch(cloud, spec)

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


def kept() -> dict[str, str]:
    """Of the server's environment, what the processes of jobs get."""
    kept = {name: os.environ[name] for name in KEPT if name in os.environ}
    return kept | {"PATH": f"{Path(sys.executable).parent}:{kept.get('PATH', os.defpath)}"}


def grace_s() -> float:
    """Google gives 30 seconds; tests give less."""
    return float(os.environ.get("LOCAL_CLOUD_GRACE_S", 30))


def kill(family: set[psutil.Process]) -> None:
    """End what is left of them, and see them end: a job that has ended has no process."""
    left = [process for process in family if process.is_running()]  # compares the start time
    for process in left:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=KILL_S)
