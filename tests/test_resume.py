"""A job that is stopped again and again ends as one that never was."""

import json
import uuid

import keras
import numpy as np
import psutil
import pytest

import helpers
from helpers import storage
from tests.emulator.conftest import until
from tests.test_train import notebook

FIT = """\
import json, time
from pathlib import Path
import keras, numpy as np, tensorflow as tf
import helpers
from helpers import data
tf.config.experimental.enable_op_determinism()
rooms = data.load("diabetes")
keras.utils.set_random_seed(3)
inputs, x = helpers.encode(rooms)
x = keras.layers.Dropout(0.2)(keras.layers.Dense(8, activation="tanh")(x))
model = keras.Model(inputs, helpers.decode(rooms, x))
rate = keras.optimizers.schedules.CosineDecay(1e-2, 10 * EPOCHS)
model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"])
saved = helpers.checkpoints(model, steps_per_epoch=10)
slow = keras.callbacks.LambdaCallback(
    on_train_batch_end=lambda batch, logs: (print("step", flush=True), time.sleep(0.05)))
history = model.fit(
    helpers.batches(rooms, rooms.train, batch_size=34, seed=3, start_epoch=saved.epoch,
                    start_step=saved.step),
    validation_data=helpers.batches(rooms, rooms.test, batch_size=500),
    initial_epoch=saved.epoch, epochs=EPOCHS, steps_per_epoch=10,
    callbacks=[saved, slow], verbose=2)
told = {"history": history.history, "weights": [w.numpy().tolist() for w in model.weights]}
Path(OUTPUT_DIR, "metrics.json").write_text(json.dumps(told))
"""


def stop_machine(job) -> None:
    """As the service takes a spot machine back: SIGTERM to the container's first process."""
    number = job.number
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if (
            any("container_main" in word for word in words)
            and process.environ().get("CLOUD_ML_JOB_ID") == number
        ):
            process.terminate()


@pytest.mark.parametrize("stops", [2, pytest.param(5, marks=pytest.mark.soak)])
def test_a_job_stopped_again_and_again_ends_the_same(session, tmp_path, stops):
    path = notebook(tmp_path, "fit.ipynb", FIT)
    epochs = {"EPOCHS": 3 + stops}
    job = helpers.train(session, str(path), parameters=epochs, spot=True, wait=False)

    def steps() -> list:
        return [entry for entry in job.logs() if entry.get("textPayload") == "step"]

    seen = 0
    for _ in range(stops):
        until(lambda enough=seen + 13: len(steps()) >= enough or job.state == "FAILED")
        assert job.state == "RUNNING", job.resource().get("error")
        stop_machine(job)
        until(lambda: b"stopped on request" in json.dumps(list(job.logs())).encode())
        seen = len(steps())
    job.wait()
    whole = helpers.train(session, str(path), parameters=epochs)
    assert job.metrics["weights"] == whole.metrics["weights"]
    assert job.metrics["history"].keys() == whole.metrics["history"].keys()
    for name, values in whole.metrics["history"].items():
        assert job.metrics["history"][name] == pytest.approx(values, rel=1e-5)
        assert len(values) == epochs["EPOCHS"]
    said = "\n".join(entry["textPayload"] for entry in job.logs())
    assert said.count("Going on from epoch") == stops
    kept = storage.list_uris(session, f"{job.base_uri}/checkpoints/")
    assert len(kept) == 1


def test_a_broken_checkpoint_is_passed_over(session, monkeypatch, capsys):
    where = f"gs://{session.bucket}/{uuid.uuid4().hex}/checkpoints"
    monkeypatch.setenv("AIP_CHECKPOINT_DIR", where + "/")

    def made() -> keras.Model:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        return model

    first, x = made(), np.ones((8, 2), "float32")
    saved = helpers.checkpoints(first, steps_per_epoch=2)
    assert (saved.epoch, saved.step) == (0, 0)
    first.fit(x, x[:, 0], epochs=2, batch_size=4, callbacks=[saved], verbose=0)
    storage.write_bytes(session, b"PK cut short", f"{where}/000003-00000000.npz")
    second = made()
    again = helpers.checkpoints(second, steps_per_epoch=2)
    assert (again.epoch, again.step) == (2, 0)
    assert "000003-00000000.npz can't be read" in capsys.readouterr().out
    np.testing.assert_array_equal(second.get_weights()[0], first.get_weights()[0])
    assert len(second.fit(x, x[:, 0], epochs=3, initial_epoch=2, batch_size=4,
                          callbacks=[again], verbose=0).history["loss"]) == 3  # fmt: skip
