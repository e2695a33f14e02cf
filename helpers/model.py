"""The two ends of a Keras model for a table: raw values in, answers in the target's own unit out.

What lies between `encode` and `decode` is the notebook's. Both ends are part of the SavedModel,
so no client ever scales, looks up or imputes anything.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers import data
from helpers.errors import SettingError

MISSING = float(np.finfo("float32").min)  # a missing number on the wire, as JSON has no NaN
VOCABULARY = 50  # levels of a text column that get a column each; the rest share one
LEVELS = 50  # levels of a text column that the instance schema names


@keras.saving.register_keras_serializable("helpers")
class Encode(keras.layers.Layer):
    """Named scalars to one matrix, with the statistics of the training rows.

    `numbers`: column -> [mean, sd, had gaps]; `texts`: column -> [levels, had rarer levels].
    """

    def __init__(self, numbers: dict, texts: dict, **kwargs):
        super().__init__(**kwargs)
        self.numbers, self.texts = numbers, texts

    def call(self, inputs):  # {column: (batch,)} -> (batch, width)
        parts = []
        if self.numbers:
            mean, sd, gaps = np.array(list(self.numbers.values()), "float32").T
            x = tf.stack([inputs[name] for name in self.numbers], axis=1)  # (batch, numbers)
            # `not >` is true of the sentinel and of NaN alike
            missing = tf.logical_not(x > MISSING)
            parts.append((tf.where(missing, mean, x) - mean) / sd)
            if gaps.any():
                parts.append(tf.cast(tf.gather(missing, np.flatnonzero(gaps), axis=1), "float32"))
        for name, (levels, rest) in self.texts.items():
            # a comparison needs no table, so the graph can be frozen and holds no state
            hit = tf.cast(tf.equal(inputs[name][:, None], tf.constant(levels)), "float32")
            parts.append(hit)
            if rest:
                parts.append(1 - tf.reduce_sum(hit, axis=1, keepdims=True))
        return tf.concat(parts, axis=1)

    def compute_output_shape(self, input_shape):
        gaps = sum(gap for _, _, gap in self.numbers.values())
        return (None, len(self.numbers) + gaps + sum(len(v) + r for v, r in self.texts.values()))

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(self.compute_output_shape(None), dtype="float32")

    def get_config(self) -> dict:
        return super().get_config() | {"numbers": self.numbers, "texts": self.texts}


def encode(table) -> tuple[dict[str, keras.KerasTensor], keras.KerasTensor]:
    """The inputs of a model for this table, and their numeric form.

    Numbers are standardised; a missing one (NaN, or float32's lowest value) becomes the mean, and
    a second column says so where training had gaps. A text becomes one column a level: the 50 most
    frequent, rarer ones share a column, and a level never seen is all zeros. A missing text ("")
    is a level like the others. All statistics come from `table.train` alone.

    Returns:
        ({column: scalar input}, (batch, width) float32)
    """
    inputs, numbers, texts = {}, {}, {}
    for name in table.features:
        column = table.train[name]
        if table.kinds[name] == "number":
            sd = float(column.std(ddof=0))
            known = [float(column.mean()), sd if sd > 0 else 1.0]
            numbers[name] = [*(known if column.notna().any() else (0.0, 1.0))]
            numbers[name].append(int(column.isna().any()))
            inputs[name] = keras.Input((), name=name, dtype="float32")
        else:
            levels = (
                _texts(column)
                .value_counts()
                .sort_index()
                .sort_values(ascending=False, kind="stable")
            )
            texts[name] = [list(levels.index[:VOCABULARY]), int(len(levels) > VOCABULARY)]
            inputs[name] = keras.Input((), name=name, dtype="string")
    return inputs, Encode(numbers, texts, name="encode")(inputs)


def decode(table, x: keras.KerasTensor) -> keras.KerasTensor:
    """The answer of a model whose last hidden layer is `x` (batch, width).

    Returns:
        Regression: (batch,) in the target's unit. Classification: (batch, classes) probabilities,
        in the order of `table.classes`.
    """
    if table.task != "regression":
        return keras.layers.Dense(len(table.classes), activation="softmax", name="decode")(x)
    target = table.train[table.target]
    x = keras.layers.Reshape((), name="scalar")(keras.layers.Dense(1, name="decode")(x))
    sd = float(target.std(ddof=0)) or 1.0
    return keras.layers.Rescaling(sd, offset=float(target.mean()), name="unit")(x)


def batches(
    table, frame: pd.DataFrame, *, batch_size: int, seed: int | None = None, start_epoch: int = 0
) -> tf.data.Dataset:
    """Rows as model input, held in memory as tensors.

    Args:
        frame: rows with the table's features, and its target if labels are wanted.
        seed: None gives one pass in order. A number gives epoch after epoch without end, each
            row once an epoch, in an order that depends on the seed and the epoch's number alone,
            so that training which stopped can go on from any epoch: pass `steps_per_epoch` to fit.
        start_epoch: the first epoch's number, from 0.
    Returns:
        ({column: (batch,)}, labels (batch,)); labels are float32 in the target's unit, or class
        indexes. An epoch's last batch holds what is left.
    """
    if batch_size < 1:
        raise SettingError(f"BATCH_SIZE={batch_size}; expected 1 or more.")
    numbers = [name for name in table.features if table.kinds[name] == "number"]
    texts = [name for name in table.features if table.kinds[name] != "number"]
    # one matrix a kind: a batch is one gather, however many columns there are
    number = tf.constant(frame[numbers].to_numpy("float32"))
    text = tf.constant(frame[texts].apply(_texts).to_numpy(str).tolist(), tf.string, None)
    text = tf.reshape(text, (len(frame), len(texts)))
    labels = _labels(table, frame[table.target]) if table.target in frame else None

    def rows(index):
        columns = dict(zip(numbers, tf.unstack(tf.gather(number, index), len(numbers), 1)))
        columns |= zip(texts, tf.unstack(tf.gather(text, index), len(texts), 1))
        return columns if labels is None else (columns, tf.gather(labels, index))

    def epoch(number):
        order = tf.range(len(frame))
        order = tf.random.experimental.stateless_shuffle(order, tf.stack([seed, number]))
        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size)

    if seed is None:
        index = tf.data.Dataset.range(len(frame)).batch(batch_size)
    else:
        index = tf.data.Dataset.counter(start_epoch).flat_map(epoch)
    return index.map(rows).prefetch(tf.data.AUTOTUNE)


def steps_per_execution(steps_per_epoch: int) -> int:
    """How many training steps Keras should run in one call, so that Python is not the brake.

    A divisor of `steps_per_epoch` (an execution never crosses an epoch): the largest up to 512, or
    where that would be under 32 the next larger one.
    """
    divisors = [n for n in range(1, steps_per_epoch + 1) if steps_per_epoch % n == 0]
    small = max(n for n in divisors if n <= 512)
    return small if small >= 32 else next((n for n in divisors if n > 512), small)


def scores(model: keras.Model, table, frame: pd.DataFrame) -> pd.DataFrame:
    """Score rows with a model in memory; the columns are those of `helpers.predict`.

    Returns:
        (n, 1) answers in the target's unit, or (n, 1 + classes): the class and a probability each.
    """
    rows = batches(table, frame[list(table.features)], batch_size=1024)
    answers = np.concatenate([model(columns, training=False).numpy() for columns in rows])
    if table.task == "regression":
        return pd.DataFrame({table.target: answers}, index=frame.index)
    probabilities = {data.probability_name(c): answers[:, i] for i, c in enumerate(table.classes)}
    best = np.array(table.classes, object)[answers.argmax(axis=1)]
    return pd.DataFrame({table.target: best} | probabilities, index=frame.index)


def export(model: keras.Model, table, folder: str | os.PathLike) -> Path:
    """Write the model as TensorFlow Serving takes it: raw values in, readable answers out.

    Inputs are one scalar a feature, named as the column. Outputs are the target (regression), or
    the class and one probability a class. `assets.extra/` describes both.

    Returns:
        `folder`/1. What was there is replaced as a whole, or not at all.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=".export-", dir=folder))
    kinds = {name: "float32" if table.kinds[name] == "number" else "string" for name in model.input}

    def serve(columns):
        answers = model(columns, training=False)
        if table.task == "regression":
            return {table.target: answers}
        best = tf.gather(tf.constant(table.classes), tf.argmax(answers, axis=1))
        names = [data.probability_name(name) for name in table.classes]
        return {table.target: best} | dict(zip(names, tf.unstack(answers, len(names), axis=1)))

    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    spec = {name: tf.TensorSpec([None], kind, name=name) for name, kind in kinds.items()}
    signature = tf.function(serve, input_signature=[spec]).get_concrete_function()
    tf.saved_model.save(module, str(made), signatures={"serving_default": signature})
    extra = made / "assets.extra"
    extra.mkdir()
    (extra / "instance.yaml").write_text(json.dumps(_instance(table), indent=1))
    (extra / "prediction.yaml").write_text(json.dumps(_prediction(table), indent=1))
    shutil.rmtree(folder / "1", ignore_errors=True)
    made.chmod(0o755)
    return made.rename(folder / "1")


def _instance(table) -> dict:
    """The shape of one row, as OpenAPI says it (JSON is YAML)."""
    properties = {}
    for name in table.features:
        column = table.train[name]
        about = {"nullable": bool(column.isna().any())}
        if table.kinds[name] == "number":
            about = {"type": "number"} | about
            if column.notna().any():
                about |= {"minimum": float(column.min()), "maximum": float(column.max())}
        else:
            levels = sorted(set(column.dropna()))
            about = {"type": "string"} | about
            about |= {"enum": levels} if len(levels) <= LEVELS else {}
        properties[name] = about
    example = table.proposed[list(table.features)].iloc[0]
    return {
        "title": table.name,
        "type": "object",
        "required": list(table.features),
        "properties": properties,
        "example": {name: None if pd.isna(v) else v for name, v in example.items()},
        "x-missing": {"number": MISSING, "string": ""},
        "x-tensorflow": tf.__version__,
    }


def _prediction(table) -> dict:
    about = {"title": table.target, "type": "number", "x-task": table.task, "x-unit": table.unit}
    if table.task == "regression":
        return about
    properties = {table.target: {"type": "string", "enum": list(table.classes)}}
    properties |= {data.probability_name(name): {"type": "number"} for name in table.classes}
    return about | {"type": "object", "properties": properties}


def _texts(column: pd.Series) -> pd.Series:
    return column.astype(object).where(column.notna(), "").astype(str)


def _labels(table, target: pd.Series) -> tf.Tensor:
    if table.task == "regression":
        return tf.constant(target.to_numpy("float32"))
    index = {name: i for i, name in enumerate(table.classes)}
    return tf.constant(target.map(index).to_numpy("int64"))
