import json
import subprocess
import sys

import pytest
import tensorflow as tf

import helpers


def config(**cluster) -> str:
    return json.dumps({"cluster": cluster, "task": {"type": "chief", "index": 0}})


@pytest.mark.parametrize(
    "setting", ["", "{}", config(chief=["127.0.0.1:1"]), config(chief=["a:1"], evaluator=["b:1"])]
)
def test_one_process_uses_tensorflows_default(setting, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", setting)
    assert helpers.strategy() is tf.distribute.get_strategy()


def test_several_members_train_together(monkeypatch):
    made = []
    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", lambda: made.append("many"))
    monkeypatch.setenv("TF_CONFIG", config(chief=["a:1"], worker=["b:1", "c:1"]))
    helpers.strategy()
    assert made == ["many"]


def test_several_gpus_share_the_work(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    monkeypatch.setattr(tf.distribute, "MirroredStrategy", lambda: "mirrored")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [kind, kind])
    assert helpers.strategy() == "mirrored"


def test_the_name_is_there_without_tensorflow():
    code = "import sys, helpers; 'strategy' in dir(helpers); print('tensorflow' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
