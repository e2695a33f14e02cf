"""python -m helpers.emulator serve | stop | status | preempt JOB [REPLICA] --state DIR"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import secrets
import socket
import sys
import time
from pathlib import Path

import psutil
import uvicorn

from helpers.emulator.state import State, StateError

IDLE_CHECK_S = 10


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.emulator", description=__doc__)
    parser.add_argument("verb", choices=["serve", "stop", "status", "preempt"])
    parser.add_argument("job", nargs="?", default="", help="preempt: a training job's number")
    parser.add_argument("replica", nargs="?", default="workerpool0-0", help="(workerpool0-0)")
    parser.add_argument("--state", type=Path, default=None, help="state folder (.local-cloud)")
    parser.add_argument("--port", type=int, default=0, help="0: the one used before, else any")
    parser.add_argument("--ahead", action="store_true", help="import TensorFlow before a job asks")
    arguments = parser.parse_intermixed_args()
    folder = arguments.state or Path(os.environ.get("LOCAL_CLOUD_DIR") or ".local-cloud")
    folder = folder.expanduser().resolve()
    try:
        if arguments.verb == "serve":
            return serve(folder, arguments.port, ahead=arguments.ahead)
        if arguments.verb == "preempt":
            return preempt(folder, arguments.job, arguments.replica)
        return stop(folder) if arguments.verb == "stop" else status(folder)
    except StateError as error:
        print(error, file=sys.stderr)
        return 1


def serve(folder: Path, port: int, *, ahead: bool = False) -> int:
    """Stay in the foreground until stopped or idle."""
    from helpers.emulator.front.app import App
    from helpers.emulator.front.calls import Cloud
    from helpers.emulator.services import nursery
    from helpers.emulator.services.shortcut import ClientConnection

    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    with _alone(folder):
        state = State(folder / "state.sqlite3")
        # The same address and token after a kill, so that running jobs and clients find their way.
        identity = state.get("identity") or {"port": 0, "token": secrets.token_urlsafe(32)}
        listener = _listen(port, identity["port"])
        identity["port"] = listener.getsockname()[1]
        state.put("identity", "identity", identity)
        url = f"http://127.0.0.1:{identity['port']}"
        app = App(Cloud(folder, state, url, identity["token"]))
        if ahead:
            nursery.prepare(app.cloud)
        config = uvicorn.Config(
            app, access_log=False, log_level="warning", lifespan="on", timeout_graceful_shutdown=3,
            server_header=False, proxy_headers=False, timeout_keep_alive=75, backlog=1024,
            http=ClientConnection,
        )  # fmt: skip
        _Server(config, app, folder).run(sockets=[listener])
        state.close()
    return 0


def stop(folder: Path) -> int:
    """End the local cloud; quiet when there is none."""
    process = _process(folder)
    if process is None:
        print(f"No local cloud runs in {folder}.")
        return 0
    process.terminate()
    if not _gone(process, 30):
        process.kill()
        _gone(process, 10)
    (folder / "emulator.json").unlink(missing_ok=True)
    print(f"Local cloud in {folder} ended; its state is kept.")
    return 0


def status(folder: Path) -> int:
    """Print where it answers; exit code 3 when none does."""
    process = _process(folder)
    if process is None:
        print(f"No local cloud runs in {folder}.")
        return 3
    known = json.loads((folder / "emulator.json").read_text())
    size_mb = process.memory_info().rss / 1e6
    print(f"Local cloud at {known['url']} (process {process.pid}, {size_mb:.0f} MB) in {folder}.")
    return 0


def preempt(folder: Path, job: str, replica: str) -> int:
    """Have the machine of a training job's replica taken back; a test's word."""
    from helpers.emulator.services import jobs

    jobs.preempt(folder, job, replica)
    print(f"{replica} of job {job} is told, killed after the grace time, and starts again.")
    return 0


class _Server(uvicorn.Server):
    """Writes emulator.json once it answers; leaves when idle."""

    def __init__(self, config: uvicorn.Config, app, folder: Path):
        super().__init__(config)
        self.app, self.file = app, folder / "emulator.json"

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        if self.started:
            known = {"url": self.app.cloud.url, "token": self.app.cloud.token, "pid": os.getpid()}
            part = self.file.with_suffix(".part")
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with open(descriptor, "w") as file:
                json.dump(known, file)
            part.replace(self.file)
            self._idle = asyncio.create_task(self._leave_when_idle())

    async def shutdown(self, sockets=None) -> None:
        self.file.unlink(missing_ok=True)
        await super().shutdown(sockets)

    async def _leave_when_idle(self) -> None:
        while not self.app.idle():
            await asyncio.sleep(IDLE_CHECK_S)
        self.should_exit = True


@contextlib.contextmanager
def _alone(folder: Path):
    """Hold the state folder: made private, writable, used by one local cloud only."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        lock = open(folder / "lock", "a+")  # noqa: SIM115 - held for the life of the process
    except OSError as error:
        raise StateError(
            f"The local cloud can't write its state folder {folder} ({error.strerror}). "
            "Name another one in the environment variable LOCAL_CLOUD_DIR."
        ) from error
    with lock:
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except ImportError:
            pass  # Windows: no lock to take
        except OSError as error:
            raise StateError(
                f"Another local cloud runs in {folder}. Use it, or stop it with: "
                f"python -m helpers.emulator stop --state {folder}"
            ) from error
        yield


def _listen(port: int, before: int) -> socket.socket:
    for wanted in [port] if port else dict.fromkeys([before, 0]):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", wanted))
            return listener
        except OSError as error:
            listener.close()
            if port:
                raise StateError(
                    f"Port {port} is taken ({error.strerror}). Leave --port out to get a free one."
                ) from error
    raise AssertionError("unreachable: port 0 always binds")


def _process(folder: Path) -> psutil.Process | None:
    """The running local cloud of a folder."""
    try:
        process = psutil.Process(json.loads((folder / "emulator.json").read_text())["pid"])
        return process if "helpers.emulator" in process.cmdline() else None
    except (OSError, ValueError, KeyError, psutil.Error):
        return None


def _gone(process: psutil.Process, timeout_s: float) -> bool:
    """Wait for its end; one whose parent has not asked for its exit code is gone as well."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


if __name__ == "__main__":
    sys.exit(main())
