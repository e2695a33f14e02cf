"""What training prints: few lines, written for people."""

import time

import keras

from helpers.looks.plots import money

LINES, PAUSE_S = 10, 30


class progress(keras.callbacks.Callback):  # noqa: N801 - used as a verb, as Keras's own are not
    """A callback of `fit` with `verbose=0`: prints a line every tenth of the epochs, or every 30 s.

    The lines begin as Keras's do, `Epoch 5/50`, from which a follower of the job draws its bar.

    Args:
        table: whose target's unit the error has; its task says which metric is told. None: the
            loss, as it is.
    """

    def __init__(self, table=None):
        super().__init__()
        regression = table is not None and table.task == "regression"
        self._key, self._name = ("mae", "mean error") if regression else ("loss", "log loss")
        self._name = self._name if table is not None else "loss"
        self._unit, self._said = table.unit if regression else "", 0.0
        self._called = getattr(table, "called", "rows")

    def on_train_begin(self, logs=None):
        self._said = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        done, epochs = epoch + 1, self.params["epochs"]
        due = done == epochs or done * LINES // epochs > epoch * LINES // epochs
        if not due and time.monotonic() - self._said < PAUSE_S:
            return
        self._said, logs = time.monotonic(), logs or {}
        errors = [
            f"on {part} {self._called} {money(float(logs[key]), self._unit)}"
            for part, key in [("training", self._key), ("test", f"val_{self._key}")]
            if key in logs
        ]
        print(f"Epoch {done}/{epochs}: {self._name} {', '.join(errors)}", flush=True)
