"""The two ends of a Keras model for a table: raw values in, answers in the target's own unit out.

What lies between `encode` and `decode` is the notebook's. Both ends are part of the SavedModel,
so no client ever scales, looks up or imputes anything.
"""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers.inputs import schema, wire

VOCABULARY = 50  # levels of a text column that get an own place; the rest share one


@keras.saving.register_keras_serializable("helpers")
class Encode(keras.layers.Layer):
    """Named scalars to one matrix.

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
            # not `not x > MISSING`: TensorFlow's optimizer makes that `x <= MISSING`, false of NaN
            missing = tf.math.is_nan(x) | (x <= schema.MISSING)
            parts.append((tf.where(missing, mean, x) - mean) / sd)
            if gaps.any():
                parts.append(tf.cast(tf.gather(missing, np.flatnonzero(gaps), axis=1), "float32"))
        for name, (levels, rarer) in self.texts.items():
            # comparing needs no lookup table, so the graph holds no state and can be frozen
            place = tf.cast(tf.equal(inputs[name][:, None], tf.constant(levels)), "float32")
            parts.append(place)
            if rarer:
                parts.append(1 - tf.reduce_sum(place, axis=1, keepdims=True))
        return tf.concat(parts, axis=1)

    def compute_output_spec(self, inputs):
        width = len(self.numbers) + sum(gaps for _, _, gaps in self.numbers.values())
        width += sum(len(levels) + rarer for levels, rarer in self.texts.values())
        return keras.KerasTensor((None, width), dtype="float32")

    def get_config(self) -> dict:
        return super().get_config() | {"numbers": self.numbers, "texts": self.texts}


def encode(table) -> tuple[dict[str, keras.KerasTensor], keras.KerasTensor]:
    """The inputs of a model for this table, and their numeric form.

    Numbers are standardised; a missing one (NaN, or float32's lowest value) becomes the mean, and
    where training had gaps a second column says so. A text becomes one column a level: the 50 most
    frequent, then one for all rarer or unknown ones; where training had no rarer ones an unknown
    level is all zeros, as weights that never saw a row would be noise. A missing text ("") is a
    level like the others. All statistics come from `table.train` alone.

    Returns:
        ({name: scalar input}, (batch, width) float32); a name is the column's own, or one that
        TensorFlow takes for it
    """
    inputs, numbers, texts = {}, {}, {}
    for feature, name in wire.input_names(table.features).items():
        column = table.train[feature]
        if table.kinds[feature] == "number":
            inputs[name] = keras.Input((), name=name, dtype="float32")
            sd = float(column.std(ddof=0))
            mean = float(np.nan_to_num(column.mean()))
            numbers[name] = [mean, sd if sd > 0 else 1.0, int(column.isna().any())]
        else:
            inputs[name] = keras.Input((), name=name, dtype="string")
            counts = pd.Series(values(table, column)).value_counts()
            levels = sorted(counts.index, key=lambda level: (-counts[level], level))
            texts[name] = [levels[:VOCABULARY], int(len(levels) > VOCABULARY)]
    return inputs, Encode(numbers, texts, name="encode")(inputs)


def decode(table, x: keras.KerasTensor) -> keras.KerasTensor:
    """The answer of a model whose last hidden layer is `x` (batch, width).

    Returns:
        Regression: (batch, 1) in the target's unit; of (batch,) Keras would make one loss a batch.
        Classification: (batch, classes) probabilities, in the order of `table.classes`.
    """
    if table.task != "regression":
        return keras.layers.Dense(len(table.classes), activation="softmax", name="decode")(x)
    target = table.train[table.target]
    x = keras.layers.Dense(1, name="decode")(x)
    sd = float(target.std(ddof=0)) or 1.0
    return keras.layers.Rescaling(sd, offset=float(target.mean()), name="unit")(x)


def columns(table, frame: pd.DataFrame) -> dict[str, tf.Tensor]:
    """The inputs of the model, (n,) each."""
    names = wire.input_names(table.features)
    return {names[column]: tf.constant(values(table, frame[column])) for column in names}


def values(table, column: pd.Series) -> np.ndarray:
    """A column as tensors take it: float32 with NaN, text with "", or class indexes."""
    if column.name == table.target and table.task != "regression":
        return column.map({name: i for i, name in enumerate(table.classes)}).to_numpy("int64")
    if table.kinds.get(column.name, "number") == "number":
        return column.to_numpy("float32")
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)
