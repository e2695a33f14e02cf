"""A trained model as TensorFlow Serving takes it, and scored in memory."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers.inputs import schema
from helpers.inputs.table import probability_name
from helpers.learning.encoding import columns


def export(model: keras.Model, table, folder: str | os.PathLike) -> Path:
    """Write the model as TensorFlow Serving takes it: raw values in, readable answers out.

    Inputs are one scalar a feature, named as the column. Outputs are the target (regression), or
    the class and one probability a class. `assets.extra/` describes both (see schema.py). A table
    of numbers alone gets a second signature, `packed`: the same answers for rows sent as bytes.

    Returns:
        `folder`/1; what was there before is replaced once the new model is complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)

    def serve(**columns):
        answers = model(columns, training=False)
        if table.task == "regression":
            return {table.target: answers[:, 0]}
        best = tf.gather(tf.constant(table.classes), tf.argmax(answers, axis=1))
        shares = tf.unstack(answers, len(table.classes), axis=1)
        names = map(probability_name, table.classes)
        return {table.target: best} | dict(zip(names, shares, strict=True))

    def packed(rows):  # each a block of rows: little-endian float32, a row's columns together
        values = tf.reshape(tf.io.decode_raw(rows, "float32"), [-1, len(table.features)])
        columns = dict(zip(table.features, tf.unstack(values, axis=1), strict=True))
        # TensorFlow Serving answers what is named …_bytes in base64
        answers = model(columns, training=False)
        answers = answers[:, 0] if table.task == "regression" else answers
        return {"answers_bytes": tf.io.serialize_tensor(answers)[None]}

    spec = {name: tf.TensorSpec([None], x.dtype, name) for name, x in model.input.items()}
    module = tf.Module()
    module.weights = [weight.value for weight in model.weights]
    signatures = {"serving_default": tf.function(serve).get_concrete_function(**spec)}
    if name := schema.packed(table):
        rows = tf.TensorSpec([None], "string", "rows")
        signatures[name] = tf.function(packed).get_concrete_function(rows)
    instance = schema.instance(table) | {"x-tensorflow": tf.__version__}
    with tempfile.TemporaryDirectory(prefix=".export-", dir=folder) as beside:
        made = Path(beside, "1")
        tf.saved_model.save(module, str(made), signatures=signatures)
        (made / "assets.extra").mkdir()
        for name, about in {"instance": instance, "prediction": schema.prediction(table)}.items():
            (made / "assets.extra" / f"{name}.yaml").write_text(json.dumps(about, indent=1))
        shutil.rmtree(folder / "1", ignore_errors=True)
        return made.rename(folder / "1")


def scores(model: keras.Model, table, frame: pd.DataFrame) -> pd.DataFrame:
    """Score rows with a model in memory; same form as `helpers.predict`.

    Returns:
        (n, 1) answers in the target's unit, or (n, 1 + classes): the class and a probability each.
    """
    parts = tf.data.Dataset.from_tensor_slices(columns(table, frame)).batch(1024)
    answers = np.concatenate([model(part, training=False).numpy() for part in parts])
    if table.task == "regression":
        return pd.DataFrame({table.target: answers[:, 0]}, index=frame.index)
    best = np.array(table.classes, object)[answers.argmax(axis=1)]
    shares = {probability_name(c): answers[:, i] for i, c in enumerate(table.classes)}
    return pd.DataFrame({table.target: best} | shares, index=frame.index)
