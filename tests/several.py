"""Members of a cluster: forks of one process that has TensorFlow imported, and what they do."""

import json
import multiprocessing
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import helpers
from tests.lazily import export, keras
from tests.trained import table

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["keras", "helpers.learning.export", __name__])


@dataclass(frozen=True)
class Member:
    """A process; what it writes goes to files."""

    process: multiprocessing.Process
    out: Path
    err: Path

    def ended(self, timeout_s: float = 120) -> int:
        """Its exit code, once it has ended."""
        self.process.join(timeout_s)
        assert self.process.exitcode is not None, f"did not end within {timeout_s} s"
        return self.process.exitcode


def begin(folder: Path, action: Callable, *arguments, **environment: str) -> Member:
    """Start a member that calls `action`, with an environment of its own."""
    folder.mkdir()
    out, err = folder / "out", folder / "err"
    out.touch()
    err.touch()
    asked = (out, err, environment, action, *arguments)
    process = _forks.Process(target=_act, args=asked, daemon=True)
    process.start()
    return Member(process, out, err)


def _act(out: Path, err: Path, environment: dict, action: Callable, *arguments) -> None:
    for number, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY), number)
    os.environ |= environment
    action(*arguments)


def work_early() -> None:
    """TensorFlow begins before the machines are joined."""
    keras.layers.TextVectorization().adapt(["a b", "b c"])
    helpers.strategy(timeout_s=60)


def train(timeout_s: float, epochs: int = 3) -> None:
    """Train as one member of a cluster, or alone, and print what came of it as JSON."""
    seen = []
    rooms = table()
    with helpers.strategy(timeout_s=timeout_s).scope():
        keras.utils.set_random_seed(0)
        inputs, x = helpers.encode(rooms)
        x = keras.layers.Dense(8, activation="tanh")(x)
        model = keras.Model(inputs, helpers.decode(rooms, x))
        model.compile(
            keras.optimizers.SGD(1e-4), "mse", metrics=["mae"],
            steps_per_execution=helpers.steps_per_execution(4),
        )  # fmt: skip
        saved = helpers.checkpoints(model, steps_per_epoch=4)
    history = model.fit(
        helpers.batches(rooms, rooms.train, batch_size=23, seed=1),  # 3 × 23 and 11 rows
        epochs=epochs,
        steps_per_epoch=4,
        validation_data=helpers.batches(rooms, rooms.test, batch_size=19),  # 19 and 1 row
        callbacks=saved.beside(
            keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: seen.append(epoch),
                on_train_batch_end=lambda batch, logs: print("trains", flush=True),
            )
        ),
        verbose=0,
    )
    rows = helpers.batches(rooms, rooms.test, batch_size=20)
    features = helpers.batches(rooms, rooms.test[["size", "kind"]], batch_size=19)
    said = {
        "weights": [number for w in model.trainable_variables for number in w.numpy().flat],
        "history": history.history,
        "seen": seen,
        "evaluate": model.evaluate(rows, verbose=0),
        "predict": model.predict(features, verbose=0).tolist(),
        "scores": export.scores(model, rooms, rooms.test)["price"].tolist(),
    }
    print(json.dumps(said, default=float))
