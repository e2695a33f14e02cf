"""Run one replica as a container runtime does; standard library only, outlives the local cloud.

`python replica.py FOLDER` reads FOLDER/spec.json (commands, env, cwd, log, grace_s), holds a lock
on FOLDER/pid while it lives, appends every output line to the log, and leaves FOLDER/exit.json
({"code", "last"}: 128 + N for signal N, and the last line of stderr) when the last process is gone.
SIGTERM goes to the main process; after the grace time, or at once on SIGUSR1, all are killed.
"""

import contextlib
import ctypes
import datetime
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

LINE_BYTES = 16_384
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36


def main(folder: Path) -> None:
    with open(folder / "pid", "a+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if (folder / "exit.json").exists():
            return
        held.truncate(0)
        held.write(str(os.getpid()))
        held.flush()
        spec = json.loads((folder / "spec.json").read_text())
        _prctl(PR_SET_CHILD_SUBREAPER, 1)  # orphans become ours, so none is lost
        log, signals, code = Log(Path(spec["log"])), Signals(), 0
        for command in spec["commands"]:
            code = run(command, spec, log, signals)
            if code or signals.stop_at:
                break
        part = folder / "exit.part"
        with open(part, "w") as file:
            json.dump({"code": code, "last": log.last}, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(folder / "exit.json")


class Signals:
    """Notes what was asked for and wakes `wait`."""

    def __init__(self):
        self.asked, self.stop_at = set(), 0.0
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGCHLD):
            signal.signal(number, lambda found, frame: self.asked.add(found))

    def wait(self, timeout_s: float) -> None:
        select.select([self._reader], [], [], timeout_s)
        with contextlib.suppress(BlockingIOError):
            os.read(self._reader, 4096)


class Log:
    """Whole JSON lines, in order of time; a full disk loses lines, never the process."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self.last, self.lost, self._lock = "", 0, threading.Lock()
        self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        size = os.fstat(self._file).st_size
        tail = os.pread(self._file, 8 * LINE_BYTES, max(0, size - 8 * LINE_BYTES))
        os.ftruncate(self._file, size - len(tail.rpartition(b"\n")[2]))  # cut short by a kill

    def write(self, text: str, severity: str) -> None:
        if severity == "ERROR":
            self.last = text[:2000]
        with self._lock:
            moment = datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds")
            text = f"({self.lost} lines lost) {text}" if self.lost else text
            line = {"t": moment.replace("+00:00", "Z"), "m": text, "s": severity}
            raw, size = (json.dumps(line) + "\n").encode(), os.fstat(self._file).st_size
            try:
                if os.write(self._file, raw) == len(raw):
                    self.lost = 0
                    return
            except OSError:
                pass
            self.lost += 1
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


def run(command: list, spec: dict, log: Log, signals: Signals) -> int:
    """One command and all it starts, to the end of the last of them; its exit code."""
    try:
        child = subprocess.Popen(
            command,
            env=spec["env"],
            cwd=spec["cwd"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: _prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
        )
    except OSError as error:
        log.write(f"exec: {command[0]!r}: {error.strerror}", "ERROR")
        return 127 if isinstance(error, FileNotFoundError) else 126
    streams = [(child.stdout.fileno(), "INFO"), (child.stderr.fileno(), "ERROR")]
    readers = [threading.Thread(target=log.copy, args=pair, daemon=True) for pair in streams]
    for reader in readers:
        reader.start()
    while child.returncode is None:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child.pid:
            child.returncode = os.waitstatus_to_exitcode(status)
        elif pid == 0:
            if signal.SIGTERM in signals.asked and not signals.stop_at:
                signals.stop_at = time.monotonic() + spec["grace_s"]
                child.send_signal(signal.SIGTERM)
            if signal.SIGUSR1 in signals.asked:
                signals.stop_at = time.monotonic()
            due_s = signals.stop_at - time.monotonic() if signals.stop_at else 3600
            if due_s <= 0:
                kill_children()
            signals.wait(max(due_s, 0.05))
    with contextlib.suppress(ChildProcessError):  # a container ends with its main process
        while True:
            kill_children()
            os.waitpid(-1, 0)
    for reader in readers:
        reader.join(timeout=5)
    code = child.returncode
    return 128 - code if code < 0 else code


def kill_children() -> None:
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


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
