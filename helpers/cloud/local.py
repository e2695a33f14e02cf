"""Start the local cloud, or find the one that runs."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httplib2
from google.oauth2.credentials import Credentials

from helpers.cloud.client import LOST, NOBODY, RETRIED, Session
from helpers.cloud.folders import PACKAGE, project_root
from helpers.errors import LocalCloudError


def open_session(project: str, location: str, bucket: str) -> Session:
    """A session on the local cloud of this project.

    Raises:
        LocalCloudError: it did not start.
    """
    state = _running()
    token = Credentials(token=state["token"])
    return Session("local", project, location, bucket, state["url"], token)


def state_folder() -> Path:
    """Where the local cloud of this project keeps its state."""
    return Path(os.environ.get("LOCAL_CLOUD_DIR") or project_root() / ".local-cloud").resolve()


def is_served_from(folder: Path, url: str) -> bool:
    """Whether the local cloud at this address is the one of a state folder."""
    try:
        return json.loads((folder / "emulator.json").read_text())["url"] == url
    except (FileNotFoundError, ValueError, KeyError):
        return False


def _running() -> dict:
    """The address and token of the local cloud; starts one when none answers."""
    folder = state_folder()
    running = _answering(folder)
    if running:
        return running
    missing = [n for n in ("uvicorn", "starlette", "orjson") if not importlib.util.find_spec(n)]
    if missing:
        raise LocalCloudError(
            f"The local cloud needs {', '.join(missing)}. "
            'Install them with: pip install "colab-to-cloud[local]"'
        )
    program = [sys.executable, "-m", "helpers.emulator", "serve", f"--state={folder}"]
    program += ["--ahead"] * (os.environ.get("LOCAL_CLOUD_AHEAD") != "0")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(folder / "emulator.log", "ab") as log:
            process = subprocess.Popen(
                program, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)},
            )  # fmt: skip
    except OSError as error:
        raise LocalCloudError(
            f"The local cloud can't write its state folder {folder} ({error.strerror}). "
            "Name another one in the environment variable LOCAL_CLOUD_DIR."
        ) from error
    begun, ended = time.monotonic(), False
    while time.monotonic() < begun + (15 if ended else 60):
        ended = process.poll() is not None
        running = _answering(folder)
        if running:
            return running
        if ended and not _held(folder):
            break
        time.sleep(0.02)
    log = (folder / "emulator.log").read_text(errors="replace")[-2000:]
    raise LocalCloudError(f"The local cloud in {folder} did not start. {log.strip() or 'No log.'}")


def _held(folder: Path) -> bool:
    """Whether another local cloud has the folder: a notebook's that started at the same moment."""
    try:
        import fcntl

        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except (ImportError, OSError):  # Windows; or nobody came so far
        return False


def _answering(folder: Path) -> dict | None:
    for _ in range(8):
        try:
            state = json.loads((folder / "emulator.json").read_text())
            headers = {"Authorization": f"Bearer {state['token']}"}
            url = f"{state['url']}/storage/v1/b?project=local"
            answer, _ = httplib2.Http(timeout=5).request(url, headers=headers)
            return state if answer.status in {200, 403, *RETRIED} else None
        except (FileNotFoundError, ValueError, KeyError, *NOBODY):
            return None
        except LOST:
            continue  # somebody is there
    return None
