"""What is dear to make and only read is made once for all test workers."""

import fcntl
import subprocess
import sys
from pathlib import Path


def made(tmp_path_factory, module: str) -> Path:
    """The folder that `python -m MODULE FOLDER` filled."""
    top = tmp_path_factory.getbasetemp()
    top = top.parent if "popen" in top.name else top
    folder = top / module
    with open(top / f"{module}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_suffix(".part")
            part.mkdir(exist_ok=True)
            command = [sys.executable, "-m", module, str(part)]
            subprocess.run(command, check=True, capture_output=True, timeout=240)
            part.rename(folder)
    return folder
