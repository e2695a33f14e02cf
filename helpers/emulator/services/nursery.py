"""The one process that keeps TensorFlow imported, and the model servers and jobs it forks.

It begins with a local cloud that a notebook starts, when a job starts that may leave a model, when
a model is uploaded, or with the first server, and leaves when there has been nothing to do for five
minutes (servers/nursery.py).
"""

import io
import json
import logging
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from helpers.emulator.front import calls
from helpers.emulator.front.calls import Cloud
from helpers.emulator.servers import PROGRAMS
from helpers.emulator.services import environments

log = logging.getLogger("helpers.emulator")

# Whose packages it may import: what is not in a fork's own environment, the fork gives up.
PACKAGES = [*environments.TRAINING, *environments.SERVING["tf2"]]
# Handles of processes and forks of a process that has loaded much are Linux's.
POSSIBLE = sys.platform == "linux" and hasattr(os, "pidfd_open")
PADDING = "-" * 2048  # a fork shows its own command where ours stands
ANSWER_S = 120
# A process with one thread can be forked at any moment. NumPy's others end with a fork; Arrow's
# would not.
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "2", "CUDA_VISIBLE_DEVICES": "-1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
}  # fmt: skip
# What is read as a program starts or imports, so that a fork comes too late for it.
EARLY = re.compile(r"(TF_(?!CONFIG$|CPP_MIN_LOG_LEVEL$)|KERAS_|(OMP|MKL|OPENBLAS|NUMPY|MPL)|LD_PRE|"
                   r"PYTHON(?!PATH$|UNBUFFERED$|DONTWRITEBYTECODE$))")  # fmt: skip


@dataclass
class Nursery:
    """The process, and the environment whose packages it has imported."""

    process: subprocess.Popen
    asked: socket.socket
    view: Path
    begun_s: float = field(default_factory=time.monotonic)
    greeted: bool = False

    def settled(self) -> bool:
        """Whether it has imported all, has ended meanwhile, or takes too long."""
        if self.greeted or time.monotonic() > self.begun_s + ANSWER_S:
            return True
        try:
            return _readable(self.asked, 0)
        except (OSError, ValueError):  # closed meanwhile
            return True

    def greet(self) -> None:
        """Wait until it has imported all.

        Raises:
            OSError: it ended.
        """
        if not self.greeted and not self.asked.recv(64):
            raise OSError("the process that imports TensorFlow ended")
        self.greeted = True


class Forked:
    """A process that is not our child, with the manners of `subprocess.Popen`."""

    def __init__(self, pid: int, handle: int, stdin: int | None = None, stdout: int | None = None):
        self.pid, self._handle = pid, io.FileIO(handle)
        if stdin and stdout:
            self.stdin, self.stdout = open(stdin, "wb", 0), open(stdout, "rb")  # noqa: SIM115

    def poll(self) -> int | None:
        """None while it runs; how it ended only its parent knows."""
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._ended(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
        return 0

    def kill(self) -> None:
        if self.poll() is None:
            signal.pidfd_send_signal(self._handle.fileno(), signal.SIGKILL)

    def _ended(self, timeout_s: float | None) -> int | None:
        return 0 if _readable(self._handle, timeout_s) else None


def _readable(what: socket.socket | io.FileIO, timeout_s: float | None) -> bool:
    waiting = select.poll()
    waiting.register(what, select.POLLIN)
    return bool(waiting.poll(None if timeout_s is None else timeout_s * 1000))


_nursery: Nursery | None = None
_preparing: threading.Thread | None = None
_lock = threading.Lock()


def prepare(cloud: Cloud) -> None:
    """A job may soon train or a model be served: begin to import TensorFlow, beside all else."""
    global _preparing
    if POSSIBLE and not importing():
        _preparing = threading.Thread(target=_prepare, args=(cloud,), daemon=True, name="nursery")
        _preparing.start()


def importing() -> bool:
    """Whether it is there soon, so that waiting for it is shorter than to do without."""
    begins = _preparing is not None and _preparing.is_alive()
    return begins or (_nursery is not None and not _nursery.settled())


def view(cloud: Cloud) -> Path:
    """The packages that forks may have imported, which they have to see."""
    return environments.view(cloud, PACKAGES)


def late(env: Iterable[str]) -> bool:
    """Whether a fork comes too late for one of these variables."""
    return any(map(EARLY.match, env))


def serve(cloud: Cloud, program: dict) -> Forked | None:
    """A model server's process, or None where it has to be started by itself.

    Args:
        program: its `command`, `env`, `cwd` and `sandbox`.
    """
    near, far = os.pipe(), os.pipe()  # the server's input, its output
    try:
        made = _fork(cloud, program, [near[0], far[1], far[1]])
        return Forked(*made, os.dup(near[1]), os.dup(far[0])) if made else None
    finally:
        for descriptor in (*near, *far):
            os.close(descriptor)


def supervise(cloud: Cloud, program: dict, said: int) -> Forked | None:
    """The supervisor of a replica whose program is to be a fork, or None: it is not begun for this,
    as a program may need no TensorFlow, and other jobs would wait, too.

    Args:
        program: its `command`, `env` and `cwd`; `supervises`, the replica's folder.
        said: where it and its errors are written.
    """
    if _nursery is None or _nursery.process.poll() is not None:
        return None
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        made = _fork(cloud, program, [nothing, said, said])
        return Forked(*made) if made else None
    finally:
        os.close(nothing)


def _fork(cloud: Cloud, program: dict, streams: list[int]) -> tuple[int, int] | None:
    """Its number, and a handle of it."""
    if not POSSIBLE:
        return None
    message = json.dumps(program, default=str).encode()
    for _ in range(2):  # it may have left at this moment
        try:
            with _lock:
                nursery = _begun(cloud)
                nursery.greet()
                socket.send_fds(nursery.asked, [message], streams)
                pid, handles, *_ = socket.recv_fds(nursery.asked, 64, 1)
            if pid:
                return int(pid), handles[0]
        except OSError as error:
            log.info("no fork: %r", error)
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
    own = environments.make(cloud, home, PACKAGES)
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
    """Have it leave; what it forked stays: a server as long as its own input is open."""
    global _nursery
    nursery, _nursery = _nursery, None
    if nursery:
        nursery.asked.close()
        if not nursery.greeted:  # it imports, and has no forks
            nursery.process.kill()
        try:
            nursery.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            nursery.process.kill()
            nursery.process.wait()
