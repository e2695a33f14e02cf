"""The one process that keeps TensorFlow imported, and the model servers it forks.

It begins when a job starts that may leave a model, when a model is uploaded, or with the first
server, and leaves when there has been nothing to serve for half a minute (servers/nursery.py).
"""

import io
import json
import logging
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from helpers.emulator.front import calls
from helpers.emulator.front.calls import Cloud
from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import environments

log = logging.getLogger("helpers.emulator")

PROGRAM = PROGRAMS / "model_server.py"
# Handles of processes and forks of a process that has loaded much are Linux's.
POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
PADDING = "-" * 2048  # a fork shows its own command where ours stands
ANSWER_S = 120
# A process with one thread can be forked at any moment; numpy alone would start others.
QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass
class Nursery:
    """The process, and the environment whose packages it has imported."""

    process: subprocess.Popen
    asked: socket.socket
    view: Path


class Forked:
    """A process that is not our child, with the manners of `subprocess.Popen`."""

    def __init__(self, pid: int, handle: int, stdin: int, stdout: int):
        self.pid, self._handle = pid, io.FileIO(handle)
        self.stdin, self.stdout = open(stdin, "wb", 0), open(stdout, "rb")  # noqa: SIM115

    def poll(self) -> int | None:
        """None while it runs; how it ended only its parent knows."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired("model_server.py", timeout)
        return 0

    def kill(self) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle.fileno(), signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        waiting = select.poll()
        waiting.register(self._handle, select.POLLIN)
        return 0 if waiting.poll(None if timeout_s is None else timeout_s * 1000) else None


_nursery: Nursery | None = None
_lock = threading.Lock()


def prepare(cloud: Cloud) -> None:
    """A model may soon be served: begin to import TensorFlow, beside all else."""
    if POSSIBLE:
        threading.Thread(target=_prepare, args=(cloud,), daemon=True, name="nursery").start()


def fork(cloud: Cloud, command: list[str], **about) -> Forked | None:
    """A model server's process, or None where it has to be started by itself.

    Args:
        about: its `env`, `cwd` and `sandbox`.
    """
    if not (POSSIBLE and command[1:2] == [str(PROGRAM)]):
        return None
    message = json.dumps({"command": command} | about, default=str).encode()
    for _ in range(2):  # it may have left at this moment
        near, far = os.pipe(), os.pipe()  # the server's input, its output
        try:
            with _lock:
                asked = _begun(cloud).asked
                socket.send_fds(asked, [message], [near[0], far[1]])
                pid, handles, *_ = socket.recv_fds(asked, 64, 1)
            if pid:
                return Forked(int(pid), handles[0], os.dup(near[1]), os.dup(far[0]))
        except OSError as error:
            log.info("no fork of a model server: %r", error)
        finally:
            for descriptor in (*near, *far):
                os.close(descriptor)
        _end()
    return None


def _prepare(cloud: Cloud) -> None:
    with _lock:
        try:
            _begun(cloud).asked.send(b"{}")
        except OSError:  # it left: the next use begins another
            log.info("the nursery has left")


def _begun(cloud: Cloud) -> Nursery:
    """The process, begun if there is none of today's packages."""
    global _nursery
    home = cloud.folder / "served" / "nursery"
    own = environments.make(cloud, home, environments.SERVING["tf2"])
    if _nursery and _nursery.view == own.view and _nursery.process.poll() is None:
        return _nursery
    _end()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(ANSWER_S)
    with theirs:
        process = subprocess.Popen(
            [own.python, str(PROGRAMS / "nursery.py"), PADDING], stdin=theirs,
            stdout=subprocess.DEVNULL, start_new_session=True, cwd=home / "work",
            env=own.variables | QUIET,
        )  # fmt: skip
    _nursery = Nursery(process, ours, own.view)
    return _nursery


@calls.on_stop
def stop(cloud: Cloud) -> None:
    _end()


def _end() -> None:
    """Have it leave; the servers it forked stay, each as long as its own input is open."""
    global _nursery
    nursery, _nursery = _nursery, None
    if nursery:
        nursery.asked.close()
        try:
            nursery.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            nursery.process.kill()
            nursery.process.wait()
