"""What is dear to make and only read is made once for all test workers."""

import fcntl
import subprocess
import sys
from pathlib import Path

from helpers import storage


def made(tmp_path_factory, module: str) -> Path:
    """The folder that `python -m MODULE FOLDER` filled."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "popen" in top.name else top
    folder = top / module
    with open(top / f"{module}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(f"{module}.part")
            part.mkdir(exist_ok=True)
            command = [sys.executable, "-m", module, str(part)]
            subprocess.run(command, check=True, capture_output=True, timeout=900)
            part.rename(folder)
    return folder


def stored(session, trained: Path, base_uri: str, name: str = "model") -> str:
    """A model of tests/trained.py put where a job would leave it; the model's address."""
    storage.upload_file(session, trained / "metrics.json", f"{base_uri}/metrics.json")
    return storage.upload_folder(session, trained / name, f"{base_uri}/model")
