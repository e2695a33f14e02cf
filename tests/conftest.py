"""Every test worker gets a local cloud of its own, and leaves none behind."""

import os

# Before anything of TensorFlow or matplotlib is imported by a test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ["LOCAL_CLOUD_AHEAD"] = "0"  # most local clouds of the tests have no job

import multiprocessing
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

from tests import once
from tests.browser import open_browser
from tests.counted import pytest_sessionstart, pytest_terminal_summary  # noqa: F401 - hooks

IN_PROCESS = {f"tests/test_{name}.py" for name in ("model", "resume", "strategy", "tensorboard")}


def pytest_addoption(parser):
    parser.addoption(
        "--quick", action="store_true", help="leave out what starts a process or TensorFlow"
    )


def pytest_collection(session):
    config = session.config
    tests_here = hasattr(config, "workerinput") or not config.getoption("numprocesses", None)
    if config.getoption("quick") and tests_here:
        subprocess.Popen.__init__ = multiprocessing.process.BaseProcess.start = _too_slow
        sys.meta_path.insert(0, _NoTensorFlow())


def _too_slow(*_, **__):
    raise pytest.skip.Exception("starts a process or TensorFlow", allow_module_level=True)


class _NoTensorFlow:
    def find_spec(self, name: str, *_):
        if name.partition(".")[0] in ("keras", "tensorflow"):
            _too_slow()


def pytest_xdist_auto_num_workers() -> int:
    """Two workers more than cores: tests wait for processes they started."""
    return (os.cpu_count() or 1) + 2


class _ByWhatTheyShare(LoadScopeScheduling):
    """A worker takes a whole module: what its tests share is made once. All that import TensorFlow
    into the worker are taken by one."""

    def _split_scope(self, nodeid: str) -> str:
        module = super()._split_scope(nodeid)
        return "tensorflow" if module in IN_PROCESS else module


def pytest_xdist_make_scheduler(config, log):
    return _ByWhatTheyShare(config, log) if config.getoption("dist") == "loadscope" else None


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Modules with long tests go first, so that no worker is left alone with one at the end: those
    with several, then those that are long as a whole, or by one test."""
    weights = Counter()
    for item in items:
        if any(mark.name == "long" for mark in item.own_markers):
            weights[item.path] += 1
        elif item.get_closest_marker("long"):
            weights[item.path] = max(2, weights[item.path])
    items.sort(key=lambda item: -weights[item.path])


@pytest.fixture(scope="session", autouse=True)
def local_cloud_folder(tmp_path_factory):
    """LOCAL_CLOUD_DIR for the whole worker; what runs on it ends with the worker."""
    folder = tmp_path_factory.mktemp("local-cloud") / "state"
    os.environ["LOCAL_CLOUD_DIR"] = str(folder)
    yield folder
    if (folder / "emulator.json").exists():
        command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(folder)]
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    del os.environ["LOCAL_CLOUD_DIR"]


@pytest.fixture
def session(local_cloud_folder):
    """A session on the worker's local cloud."""
    import helpers

    return helpers.connect("local")


@pytest.fixture
def empty_cloud(tmp_path, monkeypatch):
    """An empty local cloud for one test; what the test starts finds it by the environment."""
    folder = tmp_path / "cloud"
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(folder))
    yield folder
    command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def browser():
    """A headless Chromium for a module; a process can hold one at a time."""
    with open_browser() as found:
        yield found


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Path:
    """The models of tests/trained.py."""
    return once.made(tmp_path_factory, "tests.trained")


@pytest.fixture
def artifact(session, trained):
    """Stores a copy of a trained model, as a job of its own would; gives its address."""

    def store(name: str = "model") -> str:
        base = f"gs://{session.bucket}/trained/{uuid.uuid4().hex[:8]}"
        return once.stored(session, trained, base, name)

    return store
