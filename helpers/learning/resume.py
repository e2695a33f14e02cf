"""Resume a training job where it was stopped: checkpoints every epoch, and when told to stop.

A checkpoint is one file, `epoch-step.npz`, below the gs:// address AIP_CHECKPOINT_DIR:
weights, the optimizer's state (with it the place in a learning-rate schedule), random states,
running metrics, the history, and what other callbacks count and compare. It is complete before an
older one is removed.
"""

import io
import json
import os
import signal
import zipfile
from inspect import signature

import keras
import numpy as np

from helpers.cloud import environment, storage
from helpers.errors import NotFoundError, SettingError, StoppedError
from helpers.learning.strategy import agreed, member, several

PAST_ALL = 2**31  # epochs


class checkpoints(keras.callbacks.Callback):  # noqa: N801 - used as a verb, as Keras's own are not
    """Restore a compiled model's last checkpoint, and as a callback of `fit` keep new ones.

    Without AIP_CHECKPOINT_DIR, as outside of jobs, it does nothing. SIGTERM saves at the next batch
    end and raises; of several workers all stop, after the same batch. Give other callbacks to
    `beside`.

    Attributes:
        epoch, step: where to go on: `fit(initial_epoch=…)`, and `batches(start_epoch=…,
            start_step=…)`; 0 and 0 at first, past all epochs when a callback had ended training.
        history: one list a metric, over all epochs once `fit` has ended.
    Raises:
        SettingError: the model has no weights or no optimizer yet, or the checkpoint is another's.
        StoppedError: in `fit`, after SIGTERM.
    """

    def __init__(self, model: keras.Model, *, steps_per_epoch: int):
        super().__init__()
        _check(model)
        self.where = os.environ.get("AIP_CHECKPOINT_DIR", "").rstrip("/")
        self.steps, self.epoch, self.step, self.history = steps_per_epoch, 0, 0, {}
        self._told, self._due, self._metrics = False, False, []
        self._skipped, self._ended = 0, None
        self._others, self._kept = (), []
        found = _newest(self.where) if self.where else None
        if found:
            model.optimizer.build(model.trainable_variables)
            about = json.loads(
                str(found["about"]), object_hook=lambda d: found[d["@"]] if "@" in d else d
            )
            self.epoch, self.step, self.history = (about[k] for k in ("epoch", "step", "history"))
            self._metrics, self._kept = about["metrics"], about["others"]
            _restore(model, about["state"], self.where)
            print(f"Going on from epoch {self.epoch}, step {self.step}: {self.where}/", flush=True)
            if about["ended"]:
                self.epoch = PAST_ALL

    def beside(self, *others: keras.callbacks.Callback) -> list[keras.callbacks.Callback]:
        """The callbacks for `fit`: this one, and others that go on where they were as well.

        Their public numbers, lists and arrays are kept, unless they are arguments of their class:
        an EarlyStopping's count of bad epochs, its best value and its best weights.
        """
        self._others = others
        return [self, *others]

    def on_train_begin(self, logs=None):
        if self.where:
            self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_told", True))

    def on_epoch_begin(self, epoch, logs=None):
        self._between()
        self._now, self._skipped = epoch, self.step
        self.step = 0

    def on_train_batch_end(self, batch, logs=None):
        if self._metrics and member() == 0:  # sums, so that the part before the stop can be added
            for variable, before in zip(self.model.metrics_variables, self._metrics, strict=True):
                mine = self.model.distribute_strategy.experimental_local_results(variable.value)
                mine[0].assign_add(before)
        self._metrics = []
        done = self._skipped + batch + 1
        self._due = agreed(self._now * self.steps + done, self._told)
        if self._due and done < self.steps:
            self._save(self._now, done)
            self._stop()
        if self._skipped and done >= self.steps:
            self.model.stop_training = True  # ends this epoch; on_epoch_end goes on

    def on_epoch_end(self, epoch, logs=None):
        if self._skipped:
            self.model.stop_training, self._skipped = False, 0
        self._ended = epoch + 1, logs or {}

    def _between(self, *, last: bool = False) -> None:
        """Save between two epochs, when all callbacks have done their part at the end of one."""
        for callback, kept in zip(self._others, self._kept, strict=bool(self._kept)):
            vars(callback).update(kept)  # not earlier: on_train_begin resets them
        self._kept = []
        if self._ended:
            epoch, logs = self._ended
            self._ended = None
            for name, value in logs.items():
                self.history.setdefault(name, []).append(float(value))
            if self.where:
                self._save(epoch, 0)
        if self._due or (self._told and (last or not several())):
            self._stop()

    def on_train_end(self, logs=None):
        self._between(last=True)
        self.model.history.history = self.history
        self.model.history.epoch = list(range(len(next(iter(self.history.values()), []))))
        if self.where:
            signal.signal(signal.SIGTERM, self._before)

    def _stop(self) -> None:
        signal.signal(signal.SIGTERM, self._before)
        raise StoppedError(f"Told to stop; the checkpoint is in {self.where}/.")

    def _save(self, epoch: int, step: int) -> None:
        # each of several workers holds a part of a metric's sum, so all take part in reading it
        metrics = [v.numpy() for v in self.model.metrics_variables] if step else []
        if member() != 0:
            return
        arrays = {}

        def apart(array) -> dict:  # JSON holds the rest, and where in it an array belongs
            name = f"array{len(arrays)}"
            arrays[name] = np.asarray(array)
            return {"@": name}

        about = {
            "epoch": epoch, "step": step, "history": self.history,
            "ended": not step and bool(self.model.stop_training),
            "metrics": metrics,
            "others": [_plain(callback) for callback in self._others],
            "state": [v.numpy() for v in _state(self.model)],
        }  # fmt: skip
        content, older = io.BytesIO(), _names(self.where)
        np.savez(content, about=json.dumps(about, default=apart), **arrays)
        uri = f"{self.where}/{epoch:06d}-{step:08d}.npz"
        cloud = environment.from_environment()
        storage.write_bytes(cloud, content.getvalue(), uri)
        for old in set(older) - {uri}:
            storage.delete(cloud, old)


def _state(model: keras.Model) -> list:
    return [*model.variables, *model.optimizer.variables]


def _check(model: keras.Model) -> None:
    """Refuse at once a model that could be saved but not restored."""
    if not model.built or not model.variables:
        raise SettingError(
            "checkpoints(model): the model has no weights yet, so none could be restored after a "
            "stop. Give it its shape before: begin it with keras.Input(…), or call it on one batch "
            "or model.build((None, …))."
        )
    if getattr(model, "optimizer", None) is None:
        raise SettingError(
            "checkpoints(model): the model is not compiled, and its optimizer's state is part of a "
            "checkpoint. Call model.compile(…) before."
        )


def _restore(model: keras.Model, values: list, where: str) -> None:
    variables = _state(model)
    here = [tuple(variable.shape) for variable in variables]
    there = [np.shape(value) for value in values]
    if here != there:
        raise SettingError(
            f"The checkpoint in {where}/ is of another model: it has {len(there)} weights and "
            f"states, this one {len(here)}, or of other shapes. Train it as a new job."
        )
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _plain(callback: keras.callbacks.Callback) -> dict:
    """What a callback counts and compares, by name; not how it was set up."""
    given = {n for kind in type(callback).__mro__ for n in signature(kind.__init__).parameters}

    def fits(value) -> bool:
        if isinstance(value, list):
            return all(map(fits, value))
        number = isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biuf"
        return number or isinstance(value, int | float | None)

    found = {n: v for n, v in vars(callback).items() if n not in given and not n.startswith("_")}
    return {name: value for name, value in found.items() if fits(value)}


def _names(where: str) -> list[str]:
    found = storage.list_uris(environment.from_environment(), f"{where}/")
    return sorted(uri for uri in found if uri.endswith(".npz"))


def _newest(where: str) -> dict | None:
    """The newest checkpoint that is whole; one that was cut short is passed over."""
    for uri in reversed(_names(where)):
        try:
            content = storage.read_bytes(environment.from_environment(), uri)
            with np.load(io.BytesIO(content)) as file:
                return dict(file)
        except (zipfile.BadZipFile, ValueError, EOFError, NotFoundError) as error:
            print(f"{uri} can't be read ({error}); the one before is taken.", flush=True)
    return None
