"""Every test worker gets a local cloud of its own, and leaves none behind."""

import os

# Before anything of TensorFlow or matplotlib is imported by a test.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("MPLBACKEND", "agg")

import subprocess
import sys

import pytest


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
