"""What no drive can avoid, measured alone: TensorFlow imported, a server started."""

import socket
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

from helpers.emulator.servers import PROGRAMS

TURNS = 3


def least_s(model: Path) -> dict[str, float]:
    """Seconds by name, one after the other; a training's own come to them.

    Args:
        model: the folder with a SavedModel's numbered ones.
    """
    loads = f"import sys; sys.path.insert(0, {str(PROGRAMS)!r}); import model_server, saved_model"
    loaded_s = _imported_s(f"{loads}, uvicorn")
    return {
        "TensorFlow imported, twice": 2 * _imported_s("import tensorflow"),
        "a server started, beside its import": max(_started_s(model) - loaded_s, 0),
    }


def moment(cell) -> float:
    """When a cell had run, in seconds since 1970."""
    ended = datetime.fromisoformat(cell.metadata.papermill.end_time)
    return (ended if ended.tzinfo else ended.replace(tzinfo=UTC)).timestamp()


def _imported_s(code: str) -> float:
    def turn() -> float:
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
        return time.perf_counter() - start

    return min(turn() for _ in range(TURNS))


def _started_s(model: Path) -> float:
    """From the start of a model server's process to its first answer."""
    return min(_turn_s(model) for _ in range(TURNS))


def _turn_s(model: Path) -> float:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["--model_name=m", f"--model_base_path={model}", f"--rest_api_port={port}"]
    start = time.perf_counter()
    server = subprocess.Popen(
        [sys.executable, str(PROGRAMS / "model_server.py"), *words], stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while server.poll() is None:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v1/models/m", timeout=5)
                return time.perf_counter() - start
            except OSError:
                time.sleep(0.005)
        raise RuntimeError("the model server did not start")
    finally:
        server.stdin.close()
        server.wait(timeout=30)
