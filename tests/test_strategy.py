"""Which strategy is chosen, and several workers for real: processes that train one model."""

import importlib
import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import helpers
from helpers.errors import ClusterError


def config(**cluster) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}})


def ports(count: int) -> list[str]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in held]
    for each in held:
        each.close()
    return found


@pytest.mark.parametrize(
    "setting", ["", "{}", config(chief=["127.0.0.1:1"]), config(chief=["a:1"], evaluator=["b:1"])]
)
def test_one_process_uses_tensorflows_default(setting, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", setting)
    assert helpers.strategy() is tf.distribute.get_strategy()


def test_members_that_do_not_find_each_other_say_so(monkeypatch):
    chief, gone = ports(2)
    monkeypatch.setenv("TF_CONFIG", config(chief=[chief], worker=[gone]))
    with pytest.raises(ClusterError, match=f"Member 1 of 2, {gone}, did not answer within 0.2 s"):
        helpers.strategy(timeout_s=0.2)


def test_a_member_its_cluster_does_not_know(monkeypatch):
    cluster = {"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "chief", "index": 0}}
    monkeypatch.setenv("TF_CONFIG", json.dumps(cluster))
    with pytest.raises(ClusterError, match="expected one of its cluster's"):
        helpers.strategy()


def test_several_gpus_share_the_work(monkeypatch):
    importlib.import_module("helpers.strategy")
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(sys.modules["helpers.strategy"], "_all_gpus", lambda: "mirrored")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind, kind])
    assert helpers.strategy() == "mirrored"


def together(count: int) -> list[dict]:
    """What every member of a cluster of that size says of its training (tests/several.py)."""
    chief, *others = ports(count)
    tasks = [("chief", 0), *(("worker", i) for i in range(count - 1))]
    started = []
    for kind, index in tasks:
        cluster = {"chief": [chief]} | ({"worker": others} if others else {})
        about = {"cluster": cluster, "task": {"type": kind, "index": index}}
        command = [sys.executable, "-m", "tests.several", "60"]
        env = os.environ | {"TF_CONFIG": json.dumps(about)}
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True))
    try:
        return [json.loads(each.communicate(timeout=120)[0].splitlines()[-1]) for each in started]
    finally:
        for each in started:
            each.kill()
            each.wait()


@pytest.fixture(scope="module")
def alone() -> dict:
    return together(1)[0]


@pytest.mark.parametrize("count", [2, pytest.param(3, marks=pytest.mark.soak)])
def test_several_workers_are_as_one(alone, count):
    """Same answers on all, and those of one process with the same global batch."""
    members = together(count)
    assert all(member == members[0] for member in members)
    said = members[0]
    assert said["seen"] == [0, 1, 2]
    for name in ("weights", "evaluate", "predict", "scores"):
        np.testing.assert_allclose(said[name], alone[name], rtol=1e-4, atol=1e-5)
    for name in ("mae", "val_mae", "val_loss"):
        np.testing.assert_allclose(said["history"][name], alone["history"][name], rtol=1e-4)
    # weights of the last, uneven batch are in the logged training loss
    np.testing.assert_allclose(said["history"]["loss"], alone["history"]["loss"], rtol=0.05)


def test_the_name_is_there_without_tensorflow():
    code = "import sys, helpers; 'strategy' in dir(helpers); print('tensorflow' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
