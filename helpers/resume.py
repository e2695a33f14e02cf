"""Go on where a training job was stopped: checkpoints every epoch, and when told to stop.

A checkpoint is one file, `epoch-step.npz`, below the gs:// address AIP_CHECKPOINT_DIR:
weights, the optimizer's state (with it the place in a learning-rate schedule), random states,
running metrics and the history. It is complete before an older one is removed.
"""

import io
import json
import os
import signal
import zipfile

import keras
import numpy as np

from helpers import session, storage
from helpers.errors import NotFoundError, StoppedError
from helpers.strategy import member, several


class checkpoints(keras.callbacks.Callback):  # noqa: N801 - used as a verb, as Keras's own are not
    """Restore a compiled model's last checkpoint, and as a callback of `fit` keep new ones.

    Without AIP_CHECKPOINT_DIR, as outside of jobs, it does nothing. SIGTERM saves at the next batch
    end (several workers: keeps the last epoch's) and raises. Put it first among the callbacks.

    Attributes:
        epoch, step: where to go on: `fit(initial_epoch=…)`, and `batches(start_epoch=…,
            start_step=…)`; 0 and 0 at first.
        history: one list a metric, over all epochs once `fit` has ended.
    Raises:
        StoppedError: in `fit`, after SIGTERM.
    """

    def __init__(self, model: keras.Model, *, steps_per_epoch: int):
        super().__init__()
        self.where = os.environ.get("AIP_CHECKPOINT_DIR", "").rstrip("/")
        self.steps, self.epoch, self.step, self.history = steps_per_epoch, 0, 0, {}
        self._told, self._metrics, self._skipped = False, [], 0
        found = _newest(self.where) if self.where else None
        if found:
            model.optimizer.build(model.trainable_variables)
            about = json.loads(str(found["about"]))
            self.epoch, self.step, self.history = (about[k] for k in ("epoch", "step", "history"))
            for i, variable in enumerate(_state(model)):
                variable.assign(found[f"state{i}"])
            self._metrics = [found[f"metric{i}"] for i in range(about["metrics"])]
            print(f"Going on from epoch {self.epoch}, step {self.step}: {self.where}/", flush=True)

    def on_train_begin(self, logs=None):
        if self.where:
            self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_told", True))

    def on_epoch_begin(self, epoch, logs=None):
        self._now, self._skipped = epoch, self.step
        self.step = 0

    def on_train_batch_end(self, batch, logs=None):
        if self._metrics:  # sums, so that the part before the stop can be added
            for variable, before in zip(self.model.metrics_variables, self._metrics, strict=True):
                variable.assign(variable + before)
            self._metrics = []
        done = self._skipped + batch + 1
        if self._told and done < self.steps and not several():
            self._save(self._now, done)
            self._stop()
        if self._skipped and done >= self.steps:
            self.model.stop_training = True  # ends this epoch; on_epoch_end goes on

    def on_epoch_end(self, epoch, logs=None):
        if self._skipped:
            self.model.stop_training, self._skipped = False, 0
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(float(value))
        if self.where:
            self._save(epoch + 1, 0)
        if self._told:
            self._stop()

    def on_train_end(self, logs=None):
        self.model.history.history = self.history
        self.model.history.epoch = list(range(len(next(iter(self.history.values()), []))))
        if self.where:
            signal.signal(signal.SIGTERM, self._before)

    def _stop(self) -> None:
        signal.signal(signal.SIGTERM, self._before)
        raise StoppedError(f"Told to stop; the checkpoint is in {self.where}/.")

    def _save(self, epoch: int, step: int) -> None:
        if member() != 0:
            return
        metrics = self.model.metrics_variables if step else []
        about = {"epoch": epoch, "step": step, "history": self.history, "metrics": len(metrics)}
        arrays = {f"state{i}": v.numpy() for i, v in enumerate(_state(self.model))}
        arrays |= {f"metric{i}": v.numpy() for i, v in enumerate(metrics)}
        content, older = io.BytesIO(), _names(self.where)
        np.savez(content, about=json.dumps(about), **arrays)
        uri = f"{self.where}/{epoch:06d}-{step:08d}.npz"
        cloud = session.from_environment()
        storage.write_bytes(cloud, content.getvalue(), uri)
        for old in set(older) - {uri}:
            storage.delete(cloud, old)


def _state(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


def _names(where: str) -> list[str]:
    found = storage.list_uris(session.from_environment(), f"{where}/")
    return sorted(uri for uri in found if uri.endswith(".npz"))


def _newest(where: str) -> dict | None:
    """The last whole checkpoint; one that a fault cut short is passed over."""
    for uri in reversed(_names(where)):
        try:
            content = storage.read_bytes(session.from_environment(), uri)
            with np.load(io.BytesIO(content)) as file:
                return dict(file)
        except (zipfile.BadZipFile, ValueError, EOFError, NotFoundError) as error:
            print(f"{uri} can't be read ({error}); the one before is taken.", flush=True)
    return None
