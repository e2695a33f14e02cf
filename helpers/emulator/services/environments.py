"""What a job or a served model finds of this machine: a Python of its own, with the distributions
that its image names, folders of its own, and, where the system allows it, no other files."""

import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from helpers.emulator.front.calls import Cloud
from helpers.emulator.servers import PROGRAMS
from helpers.emulator.servers.packages import SITE

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What Google's own training images bring besides Python [D: training/pre-built-containers].
TRAINING = (
    "tensorflow", "tensorflow-cpu", "keras", "tensorboard", "torch", "torchvision", "xgboost",
    "scikit-learn", "pandas", "numpy", "scipy", "matplotlib", "pyarrow", "h5py", "joblib",
    "requests", "fsspec", "gcsfs", "cloudml-hypertune", "google-cloud-storage",
    "google-cloud-bigquery", "google-cloud-aiplatform", "google-cloud-logging", "google-auth",
    "google-api-python-client", "ipykernel", "papermill", "pip", "setuptools", "wheel",
)  # fmt: skip
# What the servers of models need, by the kind of image; a model's own code finds no more.
SERVING = {
    "tf2": ["tensorflow", "tensorflow-cpu", "orjson", "pybase64", "uvicorn", "httptools", "uvloop"],
    "sklearn": ["scikit-learn", "joblib", "pandas", "orjson"],
}
PIP = """import subprocess, sys
sys.exit(subprocess.call([{python!r}, "-E", "-s", {program!r}, {prefix!r}, *sys.argv[1:]]))
"""
_building = threading.Lock()


@dataclass(frozen=True)
class Environment:
    """A Python below `home`, which belongs to one replica or one served model."""

    home: Path
    python: str
    variables: dict[str, str]
    view: Path

    def hidden(
        self, command: list[str], *, read: Sequence[Path] = (), write: Sequence[Path] = (),
        shown_as: Mapping[str, Path] = MappingProxyType({}),
    ) -> list[str]:  # fmt: skip
        """The command, kept from seeing other files; as it is where that is not possible."""
        spec = self.sandbox(read=read, write=write, shown_as=shown_as)
        program = [sys.executable, "-I", "-S", str(PROGRAMS / "sandbox.py"), str(spec)]
        return [*program, *command] if spec else command

    def sandbox(
        self, *, read: Sequence[Path] = (), write: Sequence[Path] = (),
        shown_as: Mapping[str, Path] = MappingProxyType({}),
    ) -> Path | None:  # fmt: skip
        """What sandbox.py is told; None where this system can't hide files."""
        if not can_hide():
            return None
        spec = {
            "root": str(self.home / "root"), "env": {"TMPDIR": "/tmp/job"},
            "read": [*_pythons(), str(PROGRAMS), str(self.view), *map(str, read)],
            "write": [str(self.home), *map(str, write)],
            "as": {"/tmp": str(self.home / "tmp")} | {k: str(v) for k, v in shown_as.items()},
        }  # fmt: skip
        path = self.home / "sandbox.json"
        path.write_text(json.dumps(spec))
        return path


def make(cloud: Cloud, home: Path, requirements: list[str]) -> Environment:
    """The environment at `home`; one that is there is kept, with what was installed in it."""
    prefix, shown = home / "python", view(cloud, requirements)
    binaries, site = prefix / "bin", prefix / SITE
    for folder in (home / "home", home / "work", home / "tmp" / "job", binaries, site / "pip"):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    base = Path(getattr(sys, "_base_executable", sys.executable)).resolve()
    (prefix / "pyvenv.cfg").write_text(
        f"home = {base.parent}\ninclude-system-site-packages = false\n"
    )
    major, minor, *_ = sys.version_info
    for name in ("python", "python3", f"python{major}.{minor}"):
        if not (binaries / name).is_symlink():
            (binaries / name).symlink_to(base)
    for name in ("share", "etc"):
        if (shown / name).exists() and not (prefix / name).is_symlink():
            (prefix / name).symlink_to(shown / name)
    (site / "_image.pth").write_text(f"import site; site.addsitedir({str(shown / SITE)!r})\n")
    program = PIP.format(python=sys.executable, program=str(PROGRAMS / "job_pip.py"),
                         prefix=str(prefix))  # fmt: skip
    (site / "pip" / "__init__.py").write_text("")
    (site / "pip" / "__main__.py").write_text(program)
    for name in ("pip", "pip3", f"pip{major}.{minor}"):
        (binaries / name).write_text(f'#!/bin/sh\nexec {binaries}/python -m pip "$@"\n')
        (binaries / name).chmod(0o700)
    variables = {key: os.environ[key] for key in ("LANG", "LD_LIBRARY_PATH") if key in os.environ}
    variables |= {
        "PATH": f"{binaries}:{shown}/bin:{SYSTEM_PATH}", "HOME": str(home / "home"),
        "TMPDIR": str(home / "tmp" / "job"),
    }  # fmt: skip
    return Environment(home, str(binaries / "python"), variables, shown)


def base_requirements(image: str) -> list[str]:
    """What an image has before anything is installed in it."""
    if "vertex-ai/" in image or image.startswith("gcr.io/"):
        return list(TRAINING)
    tools = ["pip", "setuptools", "wheel"]
    return ["tensorflow", "tensorflow-cpu", *tools] if "tensorflow/tensorflow" in image else tools


def has_tensorflow(shown: Path) -> bool:
    """Whether a view has it, by whatever name it came."""
    return (shown / SITE / "tensorflow").exists()


@functools.cache
def can_hide() -> bool:
    """Whether this system gives namespaces to whoever asks."""
    if sys.platform != "linux":
        return False
    probe = [sys.executable, "-I", "-S", str(PROGRAMS / "sandbox.py"), "--probe"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def view(cloud: Cloud, requirements: list[str]) -> Path:
    """A prefix with these distributions in it, made once for all that name the same."""
    sites = [path for path in sys.path if path.endswith("-packages") and os.path.isdir(path)]
    about = [sorted(set(requirements)), [(path, os.stat(path).st_mtime_ns) for path in sites]]
    key = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]
    folder = cloud.folder / "environments" / key
    with _building:
        if not folder.exists():
            folder.parent.mkdir(mode=0o700, exist_ok=True)
            part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".part"))
            program = [sys.executable, "-E", "-s", str(PROGRAMS / "packages.py"), str(part)]
            try:
                subprocess.run([*program, *requirements], check=True, capture_output=True)
                part.rename(folder)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    return folder


@functools.cache
def _pythons() -> list[str]:
    """Where this machine's Python and its packages lie."""
    places = [sys.base_prefix, sys.prefix, *os.environ.get("LD_LIBRARY_PATH", "").split(":")]
    places += [path for path in sys.path if path.endswith("-packages")]
    inner = sorted({p for p in places if p.startswith("/") and os.path.isdir(p)})
    tops = [p for p in inner if not any(p != q and p.startswith(f"{q}/") for q in inner)]
    return [p for p in tops if not p.startswith("/usr/") and p != "/usr"]
