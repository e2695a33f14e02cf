"""A job that is stopped again and again ends as one that never was."""

import http.client
import random
import signal
import subprocess
import sys
import uuid
from urllib.parse import urlsplit

import numpy as np
import pytest

import helpers
from helpers import storage
from helpers.errors import SettingError, StoppedError
from tests.emulator.conftest import until
from tests.lazily import keras, tf
from tests.test_train import notebook
from tests.trained import table

FIT = """\
import json, time
from pathlib import Path
import keras, numpy as np, tensorflow as tf
import helpers
from helpers import data
tf.config.experimental.enable_op_determinism()
gate, steps, asked = Path(GATE), [], []
# Waits after as many steps as the gate says, until it says something else.
def paced(batch, logs):
    print("step", flush=True)
    steps.append(batch)
    asked[:] = asked or [gate.read_text()] if gate.exists() else []
    while asked and len(steps) >= int(asked[0].split()[0]) and gate.read_text() == asked[0]:
        time.sleep(0.02)
rooms = data.load("diabetes")
keras.utils.set_random_seed(3)
with helpers.strategy(timeout_s=60).scope():
    inputs, x = helpers.encode(rooms)
    x = keras.layers.Dropout(0.2)(keras.layers.Dense(8, activation="tanh")(x))
    model = keras.Model(inputs, helpers.decode(rooms, x))
    model.compile(keras.optimizers.Adam(1e-2), "mse", metrics=["mae"])
    saved = helpers.checkpoints(model, steps_per_epoch=10)
history = model.fit(
    helpers.batches(rooms, rooms.train, batch_size=34, seed=3, start_epoch=saved.epoch,
                    start_step=saved.step),
    validation_data=helpers.batches(rooms, rooms.test, batch_size=500),
    initial_epoch=saved.epoch, epochs=EPOCHS, steps_per_epoch=10, verbose=2,
    callbacks=saved.beside(
        keras.callbacks.LambdaCallback(on_train_batch_end=paced),
        keras.callbacks.ReduceLROnPlateau("loss", patience=1, min_delta=1e6),
        keras.callbacks.EarlyStopping("val_loss", patience=99, restore_best_weights=True)))
told = {"history": history.history, "weights": [w.numpy().tolist() for w in model.weights]}
Path(OUTPUT_DIR, "metrics.json").write_text(json.dumps(told))
"""


def preempt(session, local_cloud_folder, job, replica: str) -> bool:
    command = [sys.executable, "-m", "helpers.emulator", "preempt", job.number, replica]
    command += ["--state", str(local_cloud_folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("workers", "times"),
    [(0, 1), *(pytest.param(n, 10, marks=pytest.mark.soak) for n in (0, 1, 2))],
)
def test_a_job_preempted_again_and_again_ends_the_same(
    session, local_cloud_folder, tmp_path, workers, times
):
    """At random moments of start-up, training and the end, the chief or another."""
    gate = local_cloud_folder / "buckets" / session.bucket / uuid.uuid4().hex
    paths = [
        notebook(tmp_path, f"{name}.ipynb", FIT.replace("GATE", repr(str(given))))
        for name, given in {"stopped": gate, "whole": tmp_path / "none"}.items()
    ]
    epochs = 4 * times + 2
    about = {"parameters": {"EPOCHS": epochs}, "workers": workers, "wait": False}
    draw, seen = random.Random(13), 0
    stops = [draw.randrange(25) for _ in range(times)]
    replicas = ["workerpool0-0", *(f"workerpool1-{i}" for i in range(workers))]

    def let(steps: int, time: int) -> None:
        """Let each replica make so many steps from its start on."""
        new = gate.with_suffix(".new")
        new.write_text(f"{steps} {time}")
        new.rename(gate)

    let(stops[0], 0)
    job = helpers.train(session, str(paths[0]), spot=True, **about)
    whole = helpers.train(session, str(paths[1]), **about)

    def said(text: str) -> int:
        return sum(text in entry["textPayload"] for entry in job.logs())

    for time, stop in enumerate(stops):
        replica = draw.choice(replicas)
        enough = seen + stop * (workers + 1)
        until(lambda enough=enough: said("step") >= enough, 300)
        until(lambda replica=replica: preempt(session, local_cloud_folder, job, replica), 300)
        let(([*stops, 10**9])[time + 1], time + 1)
        until(lambda time=time: said("was preempted. Restarting") > time, 300)
        seen = said("step")
    job.wait()
    whole.wait()
    assert job.metrics["weights"] == whole.metrics["weights"]
    assert job.metrics["history"].keys() == whole.metrics["history"].keys()
    for name, values in whole.metrics["history"].items():
        assert job.metrics["history"][name] == pytest.approx(values, rel=1e-5)
        assert len(values) == epochs
    assert said("Going on from epoch")
    assert said("Going on from epoch") > said("step 0: gs://") or times < 3  # within an epoch
    assert not said("Restart 1 of")
    kept = storage.list_uris(session, f"{job.base_uri}/checkpoints/")
    assert len(kept) == 1


@pytest.fixture
def where(session, monkeypatch) -> str:
    """A checkpoint folder, as a job has one."""
    folder = f"gs://{session.bucket}/{uuid.uuid4().hex}/checkpoints"
    monkeypatch.setenv("AIP_CHECKPOINT_DIR", folder + "/")
    return folder


def stops(at: int, first: int):
    """Sends this process SIGTERM within a step, counted over all epochs, or after them (-1)."""

    class Stops(keras.callbacks.Callback):
        now = first

        def on_train_batch_begin(self, batch, logs=None):
            if self.now == at:
                signal.raise_signal(signal.SIGTERM)
            self.now += 1

        def on_test_begin(self, logs=None):
            if at == -self.now:
                signal.raise_signal(signal.SIGTERM)

    return Stops()


def fit(*others, rate=1e-2, stop_at: int = 10**9) -> tuple[list, dict]:
    """Train as a new process would, 6 epochs of 4 steps, from the last checkpoint if there is one.

    Returns:
        the weights, and the history.
    """
    rooms = table()
    keras.utils.set_random_seed(1)
    inputs, x = helpers.encode(rooms)
    x = keras.layers.Dropout(0.3)(keras.layers.Dense(8, "tanh")(x))
    model = keras.Model(inputs, helpers.decode(rooms, x))
    model.compile(keras.optimizers.Adam(rate), "mse", metrics=["mae"])
    saved = helpers.checkpoints(model, steps_per_epoch=4)
    place = {"start_epoch": saved.epoch, "start_step": saved.step}
    history = model.fit(
        helpers.batches(rooms, rooms.train, batch_size=20, seed=3, **place),
        validation_data=helpers.batches(rooms, rooms.test, batch_size=20),
        initial_epoch=saved.epoch, epochs=6, steps_per_epoch=4, verbose=0,
        callbacks=saved.beside(*others, stops(stop_at, 4 * saved.epoch + saved.step)),
    ).history  # fmt: skip
    return model.get_weights(), history


CASES = {
    "patience and plateau": lambda: {"others": [early(patience=4, min_delta=1e9), plateau()]},
    "best weights and schedule": lambda: {
        "others": [early("loss", patience=1, min_delta=200)],
        "rate": keras.optimizers.schedules.ExponentialDecay(1e-2, 4, 0.99),
    },
}


def plateau():
    return keras.callbacks.ReduceLROnPlateau("loss", 0.5, 2, min_delta=1e9)


def early(monitor: str = "val_loss", **settings):
    return keras.callbacks.EarlyStopping(monitor, restore_best_weights=True, **settings)


@pytest.mark.parametrize("case", CASES)
def test_what_callbacks_count_goes_on(where, monkeypatch, case):
    """Stopped within an epoch, at an epoch's end and after the last: bitwise as never stopped."""

    def run(stop_at: int = 10**9):
        made = CASES[case]()
        return fit(*made.pop("others", []), **made, stop_at=stop_at)

    tf.config.experimental.enable_op_determinism()
    monkeypatch.delenv("AIP_CHECKPOINT_DIR")
    weights, history = run()
    epochs = len(history["loss"])
    monkeypatch.setenv("AIP_CHECKPOINT_DIR", where)
    for stop_at in (5, -8, -4 * epochs):
        with pytest.raises(StoppedError, match="the checkpoint is in"):
            run(stop_at)
    again, whole = run()
    assert whole == history
    for ours, theirs in zip(again, weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_an_upload_cut_short_replaces_nothing(session, where, capsys):
    """Neither one whose connection broke, nor an object that is not whole."""
    with pytest.raises(StoppedError):
        fit(stop_at=9)
    (good,) = storage.list_uris(session, where)
    server = http.client.HTTPConnection(urlsplit(session.endpoint).netloc)
    bucket, name = storage.split_uri(f"{where}/000003-00000000.npz")
    server.putrequest("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}")
    server.putheader("Authorization", f"Bearer {session.credentials.token}")
    server.putheader("Content-Length", "100000")
    server.endheaders(b"PK" + bytes(50_000))
    server.close()
    assert storage.list_uris(session, where) == [good]
    storage.write_bytes(session, b"PK cut short", f"{where}/000003-00000000.npz")
    with pytest.raises(StoppedError):
        fit(stop_at=10)
    said = capsys.readouterr().out
    assert "000003-00000000.npz can't be read" in said
    assert "Going on from epoch 2, step 2" in said


def lazy():
    """A model that has no weights before it is called."""
    model = keras.Sequential([keras.layers.Dense(2)])
    model.compile("adam", "mse")
    return model


def own():
    """A model whose weights its own code makes, when it is called."""

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, x):
            return self.dense(x)

    made = Own()
    made.compile("adam", "mse")
    return made


def test_a_model_that_could_not_be_restored_is_refused_at_once():
    for model in (lazy(), own()):
        with pytest.raises(SettingError, match="has no weights yet.*keras.Input"):
            helpers.checkpoints(model, steps_per_epoch=1)
        model(np.ones((1, 3)))
        helpers.checkpoints(model, steps_per_epoch=1)
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(SettingError, match="not compiled"):
        helpers.checkpoints(plain, steps_per_epoch=1)


def test_a_checkpoint_of_another_model_is_refused(session, monkeypatch):
    monkeypatch.setenv(
        "AIP_CHECKPOINT_DIR", f"gs://{session.bucket}/{uuid.uuid4().hex}/checkpoints"
    )
    monkeypatch.setattr("helpers.cloud.environment.from_environment", lambda: session)
    for size in (3, 4):
        model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(2)])
        model.compile("adam", "mse")
        if size == 3:
            saved = helpers.checkpoints(model, steps_per_epoch=1)
            model.fit(np.ones((2, 3)), np.ones((2, 2)), verbose=0, callbacks=saved.beside())
    with pytest.raises(SettingError, match="is of another model"):
        helpers.checkpoints(model, steps_per_epoch=1)
