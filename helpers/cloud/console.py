"""The console's process: found or started, and the addresses that open its pages once.

The console of a local cloud belongs to its state folder and ends with it; `DIR/console.json` (mode
0600) holds its address and the secret that signs one-time addresses. A console on Google belongs to
the process that asked for it.
"""

import fcntl
import functools
import hashlib
import hmac
import importlib
import json
import logging
import os
import secrets
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from urllib.parse import urlencode

from google.oauth2.credentials import Credentials

from helpers.cloud import local
from helpers.cloud.client import Session
from helpers.cloud.folders import PACKAGE
from helpers.errors import LocalCloudError

FILE, LOCK = "console.json", "console.lock"
log = logging.getLogger("helpers")
VALID_S = 24 * 3600  # how long a one-time address may wait for its reader
START_S = 30
HANDED = ("token", "refresh_token", "token_uri", "client_id", "client_secret")
_ours: dict[tuple, tuple] = {}  # consoles that end with this process: (folder, process)


@dataclass(frozen=True)
class Opened:
    """A console that runs; the address works once, the browser keeps a cookie."""

    url: str = field(repr=False)

    def __repr__(self) -> str:
        return f"Console: {self.url}"

    def _repr_html_(self) -> str:
        return f'<a href="{escape(self.url)}" target="_blank">Open the console</a>'


def open_console(session: Session, page: str = "") -> Opened:
    """Show where the console is, in the way of the place this runs in."""
    opened = Opened(address(session, page))
    front = _colab()
    if front:
        port, path = _address(session, page)
        front.serve_kernel_port_as_window(port, path=path, anchor_text="Open the console")
    elif "ipykernel" not in sys.modules:
        print(opened)
    return opened


def address(session: Session, page: str = "") -> str:
    """An address that opens a page of the console, once, in the browser of who reads it.

    Args:
        page: below the project, such as "jobs/training/1000042".
    Raises:
        LocalCloudError: the console did not start.
    """
    port, path = _address(session, page)
    return f"{_root(port)}{path}"


def _address(session: Session, page: str) -> tuple[int, str]:
    known = _running(session)
    code = sign(known["secret"], f"{int(time.time()):x}-{secrets.token_hex(4)}")
    to = f"p/{session.project}/{session.location}/{page}"
    return known["port"], f"/enter?{urlencode({'code': code, 'to': to}, safe='/')}"


def _colab():
    """What reaches into the reader's browser, where this is Colab."""
    if "google.colab" not in sys.modules:
        return None
    try:
        return importlib.import_module("google.colab.output")
    except ImportError:
        return None


@functools.cache
def _root(port: int) -> str:
    """Where a reader's browser finds a port of this machine: in Colab behind its proxy."""
    front = _colab()
    if front:
        try:
            found = front.eval_js(f"google.colab.kernel.proxyPort({port})", timeout_sec=5)
            return str(found).rstrip("/")
        except Exception as error:  # no browser is connected, and the reasons vary
            log.info("no proxy of port %s: %r", port, error)
    return f"http://127.0.0.1:{port}"


def sign(secret: str, text: str) -> str:
    """`text` with its signature, as in a one-time address."""
    digest = hmac.new(secret.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"{text}.{digest[:32]}"


def _running(session: Session) -> dict:
    """The console that shows this session's cloud; starts one when none runs."""
    folder = local.state_folder()
    if session.cloud == "local" and local.is_served_from(folder, session.endpoint):
        return _known(folder) or _start(session, folder)[1]
    key = (session.cloud, session.project, session.location, session.bucket, session.endpoint)
    if key in _ours and _ours[key][1].poll() is None:
        return _known(Path(_ours[key][0].name)) or {}
    home = tempfile.TemporaryDirectory(prefix="console-")
    process, known = _start(session, Path(home.name), tied=True)
    _ours[key] = home, process
    return known


def wait(session: Session) -> None:
    """Stay until the console of this process ends; one of a local cloud ends with that."""
    for key, (_, process) in _ours.items():
        if key[:4] == (session.cloud, session.project, session.location, session.bucket):
            process.wait()


def _known(folder: Path) -> dict | None:
    """What a running console of a folder says of itself: it holds the lock for as long as it
    runs."""
    try:
        with open(folder / LOCK) as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except FileNotFoundError:
        return None
    except BlockingIOError:
        try:
            return json.loads((folder / FILE).read_text())
        except (FileNotFoundError, ValueError):
            return None  # it is about to begin, or to end


def _start(session: Session, folder: Path, *, tied: bool = False) -> tuple:
    """Start a console, which is told of the session by its standard input."""
    about = {
        "cloud": session.cloud, "project": session.project, "location": session.location,
        "bucket": session.bucket, "endpoint": session.endpoint,
    }  # fmt: skip
    if type(session.credentials) is Credentials:  # others are found again by signing in
        about["credentials"] = {name: getattr(session.credentials, name) for name in HANDED}
    with open(folder / "console.log", "ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "helpers.pages", str(folder)],
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            env=os.environ | {"PYTHONPATH": str(PACKAGE.parent), "MALLOC_ARENA_MAX": "2"},
            cwd=folder,
        )  # fmt: skip
    process.stdin.write(json.dumps(about).encode() + b"\n")
    process.stdin.flush()
    if not tied:
        process.stdin.close()
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        known = _known(folder)  # also when another notebook started one at the same moment
        if known:
            return process, known
        if ended and process.returncode:
            break
        time.sleep(0.01)
    said = (folder / "console.log").read_text(errors="replace")[-2000:].strip()
    raise LocalCloudError(f"The console did not start. {said or 'It left no log.'}")
