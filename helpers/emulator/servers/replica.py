"""Run one replica as a container runtime does; standard library only, outlives the local cloud.

`python replica.py FOLDER` reads FOLDER/spec.json (commands, env, cwd, log, grace_s), holds a lock
on FOLDER/pid while it lives, appends every output line to the log, and leaves FOLDER/exit.json
({"code", "last"}: 128 + N for signal N; stderr's last line) when the last process is gone.
SIGTERM goes to the main process; after the grace time, or at once on SIGUSR1, all are killed.
Where it is a fork itself (nursery.py), the last command may be one, too: spec.json's `fork`.
"""

import contextlib
import ctypes
import datetime
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

LINE_BYTES = 16_384
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(folder: Path, fork: Callable | None = None) -> None:
    with open(folder / "pid", "a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        spec = json.loads((folder / "spec.json").read_text())
        log = Log(Path(spec["log"]))
        code = run(spec, log, fork)
        part = folder / "exit.part"
        part.write_text(json.dumps({"code": code, "last": log.last}))
        part.replace(folder / "exit.json")


def run(spec: dict, log: "Log", fork: Callable | None = None) -> int:
    """The commands, one after the other, each to the end of all it started; the exit code.

    Args:
        fork: starts a program (forks.py); None where each is a process from the beginning.
    """
    child, stopped = None, False

    def stop(*_) -> None:
        nonlocal stopped
        if not stopped:
            stopped = True
            signal.setitimer(signal.ITIMER_REAL, spec["grace_s"], 0.05)
            if child and child.returncode is None:
                os.kill(child.pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGALRM, kill_children)
    signal.signal(signal.SIGUSR1, kill_children)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans become ours, so none is lost
    for command in spec["commands"]:
        try:
            if fork and spec.get("fork") and command is spec["commands"][-1]:
                child = fork(spec["fork"], spec["env"], spec["cwd"])
            else:
                child = subprocess.Popen(
                    command, env=spec["env"], cwd=spec["cwd"], stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
                )  # fmt: skip
        except OSError as error:
            log.write(f"exec: {command[0]!r}: {error.strerror}", "ERROR")
            return 127 if isinstance(error, FileNotFoundError) else 126
        if stopped:
            os.kill(child.pid, signal.SIGTERM)
        streams = [(child.stdout.fileno(), "INFO"), (child.stderr.fileno(), "ERROR")]
        readers = [threading.Thread(target=log.copy, args=pair, daemon=True) for pair in streams]
        for reader in readers:
            reader.start()
        while child.returncode is None:
            pid, status = os.waitpid(-1, 0)
            if pid == child.pid:
                child.returncode = os.waitstatus_to_exitcode(status)
        with contextlib.suppress(ChildProcessError):  # a container ends with its main process
            while True:
                kill_children()
                os.waitpid(-1, 0)
        for reader in readers:
            reader.join(timeout=5)
        if child.returncode or stopped:
            break
    return 128 - child.returncode if child.returncode < 0 else child.returncode


def kill_children(*_) -> None:
    """Nobody else can reap our children, so their numbers can't have passed to strangers."""
    if os.path.isdir("/proc/self"):
        rows = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat") as file:
                rows.append((name, file.read().rpartition(")")[2].split()[1]))
    else:
        listed = subprocess.check_output(["ps", "-axo", "pid=,ppid="], text=True)
        rows = [line.split() for line in listed.splitlines()]
    for pid, parent in rows:
        if int(parent) == os.getpid():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)


class Log:
    """Whole JSON lines in order of time; a full disk loses lines, never the process."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.last, self._lock = "", threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, 8 * LINE_BYTES, max(0, size - 8 * LINE_BYTES))
        os.ftruncate(self._file, size - len(tail.rpartition(b"\n")[2]))  # cut short by a kill

    def write(self, text: str, severity: str) -> None:
        self.last = text[:2000] if severity == "ERROR" else self.last
        with self._lock:
            moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
            line = {"t": moment.replace("+00:00", "Z"), "m": text, "s": severity}
            raw, size = (json.dumps(line) + "\n").encode(), os.fstat(self._file).st_size
            with contextlib.suppress(OSError):
                if os.write(self._file, raw) == len(raw):
                    return
            os.ftruncate(self._file, size)

    def copy(self, stream: int, severity: str) -> None:
        """Log every line of a stream; of a line redrawn by carriage returns, its last form."""
        pending = b""
        while chunk := os.read(stream, 65_536):
            *lines, pending = (pending + chunk).split(b"\n")
            for line in lines:
                self._line(line, severity)
            pending = pending[pending.rstrip(b"\r").rfind(b"\r") + 1 :][: LINE_BYTES + 1]
        self._line(pending, severity)

    def _line(self, raw: bytes, severity: str) -> None:
        raw = raw.rstrip(b"\r").rpartition(b"\r")[2].replace(b"\b", b"")
        text = raw[:LINE_BYTES].decode(errors="replace")
        if text.strip():
            self.write(text + (" … (cut)" if len(raw) > LINE_BYTES else ""), severity)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
