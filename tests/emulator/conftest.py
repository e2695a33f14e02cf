"""A real local cloud for the tests of its parts: its own process, folder and port."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import httplib2
import psutil
import pytest
from google.oauth2.credentials import Credentials
from googleapiclient.discovery import Resource

from helpers.cloud.client import Session


@dataclass
class Emulator:
    """A running `python -m helpers.emulator serve`."""

    folder: Path
    process: subprocess.Popen
    url: str
    token: str

    @property
    def session(self) -> Session:
        return Session(
            "local", "local", "us-central1", "local-bucket", self.url, Credentials(token=self.token)
        )

    @property
    def shared(self) -> Path:
        """A new folder in a bucket: jobs see it at the same path, and no other files."""
        folder = self.folder / "buckets" / "shared" / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    @property
    def parent(self) -> str:
        return "projects/local/locations/us-central1"

    def api(self, name: str) -> Resource:
        return self.session.service(name)

    def request(
        self, method: str, path: str, *, json_body=None, body: bytes | str | None = None,
        headers: dict | None = None,
    ) -> tuple[int, dict]:  # fmt: skip
        """A plain HTTP call with the token; (status, JSON)."""
        if json_body is not None:
            body = json.dumps(json_body)
        sent = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        answer, content = httplib2.Http(timeout=60).request(
            f"{self.url}{path}", method, body, sent | (headers or {})
        )
        return answer.status, json.loads(content) if content.strip() else {}

    def commands(self) -> list[str]:
        """The command lines of what it has started and what runs still."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has ended meanwhile
                found.append(" ".join(process.cmdline()))
        return found

    def kill(self) -> None:
        """kill -9, as a crash does it."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """The way `stop` ends it; what it started is gone afterwards."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.wait(timeout=60)
        _, alive = psutil.wait_procs(children, timeout=60)
        assert not alive, alive


def start(folder: Path, *arguments: str, **environment: str) -> Emulator:
    """Start a local cloud on a folder and wait until it answers."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder.parent / f"{folder.name}.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "helpers.emulator", "serve", "--state", str(folder), *arguments],
            stdout=log,
            stderr=log,
            env=os.environ | environment,
        )
    until(lambda: process.poll() is not None or _answers(folder, process.pid))
    if process.poll() is not None:
        raise RuntimeError((folder.parent / f"{folder.name}.log").read_text())
    known = json.loads((folder / "emulator.json").read_text())
    return Emulator(folder, process, known["url"], known["token"])


def until(condition: Callable, timeout_s: float = 60):
    """Wait for a condition, and give what made it true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{condition} did not come true in {timeout_s} s")


def _answers(folder: Path, pid: int) -> bool:
    try:
        return json.loads((folder / "emulator.json").read_text())["pid"] == pid
    except (OSError, ValueError):
        return False


@pytest.fixture(scope="session")
def emulator(tmp_path_factory):
    """One local cloud a worker; tests use names of their own in it."""
    running = start(tmp_path_factory.mktemp("cloud") / "state")
    yield running
    running.stop()


@pytest.fixture
def start_emulator(tmp_path):
    """Starts local clouds that a test may kill; ends those that are left."""
    started = []

    def starter(name: str = "state", *arguments: str, **environment: str) -> Emulator:
        started.append(start(tmp_path / name, *arguments, **environment))
        return started[-1]

    yield starter
    for running in started:
        if running.process.poll() is None:
            running.stop()
