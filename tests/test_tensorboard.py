"""TensorBoard: a job's logs at an address, or below the cell in Colab."""

import importlib
import json
import sys
import types
import urllib.request

import numpy as np
import pytest

import helpers
from helpers.errors import NotFoundError
from helpers.training import Job
from tests.lazily import keras


@pytest.fixture(scope="module")
def logs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs")
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    board = keras.callbacks.TensorBoard(folder, write_graph=False)
    model.fit(np.ones((4, 1)), np.ones(4), epochs=2, callbacks=[board], verbose=0)
    return folder


def test_a_jobs_logs_at_an_address(logs, session, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("helpers.cloud.folders.project_root", lambda: tmp_path)
    base_uri = "gs://local-bucket/jobs/today"
    helpers.storage.upload_folder(session, logs, f"{base_uri}/logs")
    job = Job(session, "projects/p/locations/l/customJobs/1", "today", base_uri)
    address = helpers.tensorboard(job)
    assert address.startswith("http://127.0.0.1:")
    with urllib.request.urlopen(f"{address}data/runs", timeout=30) as answer:
        assert "train" in json.load(answer)
    assert (tmp_path / "outputs" / "logs" / "today" / "train").is_dir()


def test_below_the_cell_in_colab(logs, monkeypatch):
    notebook = importlib.import_module("tensorboard.notebook")
    started = []
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(notebook, "start", started.append)
    assert helpers.tensorboard(logs) == ""
    assert started == [f'--logdir "{logs}"']


def test_nothing_logged_says_so(tmp_path):
    with pytest.raises(NotFoundError, match=r"keras\.callbacks\.TensorBoard"):
        helpers.tensorboard(tmp_path)
