"""The console's process: it serves the session it is given, and ends with its cloud."""

import contextlib
import fcntl
import json
import logging
import os
import secrets
import socket
import sys
import threading
import time
from pathlib import Path

import uvicorn

from helpers.cloud.console import FILE, LOCK
from helpers.pages.entrance import App
from helpers.pages.views import Session

GONE_S = {"stopped": 2, "killed": 60}  # how long the local cloud may be away


def serve(session: Session, state: Path) -> int:
    """Stay in the foreground until the local cloud is gone, or standard input ends."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    with open(state / LOCK, "w") as lock:
        deadline = time.monotonic() + 2  # others look whether somebody holds it
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    return 0  # another console runs here
                time.sleep(0.01)
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        secret, file = secrets.token_urlsafe(32), state / FILE
        local = (state / "emulator.json").exists()
        config = uvicorn.Config(
            App(session, secret, state if local else None), access_log=False, log_level="warning",
            lifespan="off", timeout_graceful_shutdown=1, server_header=False, proxy_headers=False,
        )  # fmt: skip
        server = _Server(config, file)
        known = {"port": listener.getsockname()[1], "secret": secret}
        listener.listen(128)
        part = file.with_suffix(".part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as target:
            json.dump(known | {"pid": os.getpid()}, target)
        part.replace(file)
        watch = _until_cloud_ends if local else _until_input_ends
        threading.Thread(target=watch, args=(server, state), daemon=True).start()
        server.run(sockets=[listener])
    return 0


class _Server(uvicorn.Server):
    """Removes its file first when it ends, so that nobody is sent here any more."""

    def __init__(self, config: uvicorn.Config, file: Path):
        super().__init__(config)
        self.file = file

    async def shutdown(self, sockets=None) -> None:
        self.file.unlink(missing_ok=True)
        await super().shutdown(sockets)


def _until_cloud_ends(server: uvicorn.Server, state: Path) -> None:
    last_s = time.monotonic()
    while not server.should_exit:
        time.sleep(0.25)
        limit_s = GONE_S["stopped"]
        with contextlib.suppress(OSError, ValueError, KeyError):
            limit_s = GONE_S["killed"]
            os.kill(json.loads((state / "emulator.json").read_text())["pid"], 0)
            last_s = time.monotonic()
        if not (state / "emulator.json").exists():
            limit_s = GONE_S["stopped"]
        if time.monotonic() - last_s > limit_s:  # never False: a signal may have set it meanwhile
            server.should_exit = True


def _until_input_ends(server: uvicorn.Server, state: Path) -> None:
    sys.stdin.read()
    server.should_exit = True
