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

from helpers import data, schema, shards
from helpers.errors import SettingError
from helpers.strategy import several

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
        ({column: scalar input}, (batch, width) float32)
    """
    inputs, numbers, texts = {}, {}, {}
    for name in table.features:
        column = table.train[name]
        if table.kinds[name] == "number":
            inputs[name] = keras.Input((), name=name, dtype="float32")
            sd = float(column.std(ddof=0))
            mean = float(np.nan_to_num(column.mean()))
            numbers[name] = [mean, sd if sd > 0 else 1.0, int(column.isna().any())]
        else:
            inputs[name] = keras.Input((), name=name, dtype="string")
            counts = pd.Series(_values(table, column)).value_counts()
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


def batches(
    table,
    frame: pd.DataFrame | shards.Rows,
    *,
    batch_size: int,
    seed: int | None = None,
    start_epoch: int = 0,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Rows as model input: tensors in memory, or what `data.rows` keeps on disk, streamed.

    Under several workers (`helpers.strategy`) each gets its share of every batch's rows, and
    `batch_size` is that of all together. Where the last batch can't be shared equally, weights
    keep its gradient that of the whole batch; the logged training loss counts them too.

    Args:
        frame: rows with the table's features, and its target if labels are wanted. Those on disk
            are dealt out at random to files; an epoch takes the files in a new order, the rows
            within each too. They need a `seed`.
        seed: None gives one pass in order. A number gives epoch after epoch without end, each row
            once an epoch; the order depends on the seed and the epoch's number alone, so that
            training which stopped can go on at `start_epoch`. Give `steps_per_epoch` to fit.
        start_step: steps of the first epoch to leave out.
    Returns:
        ({column: (batch,)}, labels (batch,)); labels are float32 in the target's unit, or class
        indexes. An epoch's last batch holds what is left.
    """
    streamed = isinstance(frame, shards.Rows)
    if batch_size < 1 or (streamed and seed is None):
        raise SettingError(
            f"batch_size={batch_size}, seed={seed}; expected 1 or more, and a seed for many files."
        )
    labelled = streamed or table.target in frame
    columns = table.features + (table.target,) * labelled
    levels = frame.levels if streamed else shards.levels(table, frame)
    texts = {name: tf.constant([*levels[name], "\0"]) for name in levels}
    mix = tf.random.experimental.stateless_shuffle

    def take(matrix):  # (n, columns) -> model input, (n,) each
        parts = dict(zip(columns, tf.unstack(matrix, len(columns), axis=1), strict=True))
        labels = parts.pop(table.target, None)
        for name in parts.keys() & texts.keys():
            parts[name] = tf.gather(texts[name], tf.cast(parts[name], "int32"))
        if not labelled:
            return parts
        return parts, labels if table.task == "regression" else tf.cast(labels, "int64")

    if streamed:
        files = tf.constant(frame.files)

        def epoch(number):
            def part(file):
                values = tf.io.decode_raw(tf.io.read_file(file), "float32")
                return take(mix(tf.reshape(values, [-1, len(columns)]), [seed, number]))

            return tf.data.Dataset.from_tensor_slices(mix(files, [seed, number])).map(part)
    else:
        matrix = tf.constant(shards.matrix(frame, columns, levels))
        piece = max(1, shards.PART_BYTES // (4 * len(columns)))  # rows: far faster than a batch

        def epoch(number):
            order = tf.data.Dataset.from_tensors(mix(tf.range(len(frame)), [seed, number]))
            return order.rebatch(piece).map(lambda index: take(tf.gather(matrix, index)))

    if seed is None:
        found = tf.data.Dataset.from_tensors(take(matrix)).rebatch(batch_size)
    else:
        epochs = tf.data.Dataset.counter(start_epoch)
        found = epochs.flat_map(lambda number: epoch(number).rebatch(batch_size)).skip(start_step)

    def share(about) -> tf.data.Dataset:
        workers, place = about.num_input_pipelines, about.input_pipeline_id

        def mine(*batch):
            total = tf.shape(tf.nest.flatten(batch)[0])[0]
            size = -(-total // workers)
            kept = tf.nest.map_structure(lambda x: x[place * size : (place + 1) * size], batch)
            if seed is None or not labelled:
                return kept if labelled else kept[0]
            # a worker's loss is the mean of its own rows, of which the last batch has unlike many
            own = tf.shape(kept[1])[0]
            weight = tf.cast(workers * own, "float32") / tf.cast(total, "float32")
            return (*kept, tf.fill([own], weight))

        return _beside(found.map(mine))

    together = several()
    return together.distribute_datasets_from_function(share) if together else _beside(found)


def _beside(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Made beside the training step, which needs the cores more than this does."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def steps_per_execution(steps_per_epoch: int) -> int:
    """How many training steps Keras should run in one call, so that Python is not the brake.

    A divisor of `steps_per_epoch`, because an execution must not cross an epoch: the largest up to
    512, or the next larger one where that is under 32. 1 under several workers.
    """
    if several():
        return 1
    divisors = [n for n in range(1, steps_per_epoch + 1) if steps_per_epoch % n == 0]
    small = max(n for n in divisors if n <= 512)
    return small if small >= 32 else next((n for n in divisors if n > 512), small)


def scores(model: keras.Model, table, frame: pd.DataFrame) -> pd.DataFrame:
    """Score rows with a model in memory; same form as `helpers.predict`.

    Returns:
        (n, 1) answers in the target's unit, or (n, 1 + classes): the class and a probability each.
    """
    parts = tf.data.Dataset.from_tensor_slices(_columns(table, frame)).batch(1024)
    answers = np.concatenate([model(part, training=False).numpy() for part in parts])
    if table.task == "regression":
        return pd.DataFrame({table.target: answers[:, 0]}, index=frame.index)
    best = np.array(table.classes, object)[answers.argmax(axis=1)]
    shares = {data.probability_name(c): answers[:, i] for i, c in enumerate(table.classes)}
    return pd.DataFrame({table.target: best} | shares, index=frame.index)


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
        names = map(data.probability_name, table.classes)
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


def _columns(table, frame: pd.DataFrame) -> dict[str, tf.Tensor]:
    """The inputs of the model, (n,) each."""
    return {name: tf.constant(_values(table, frame[name])) for name in table.features}


def _values(table, column: pd.Series) -> np.ndarray:
    """A column as tensors take it: float32 with NaN, text with "", or class indexes."""
    if column.name == table.target and table.task != "regression":
        return column.map({name: i for i, name in enumerate(table.classes)}).to_numpy("int64")
    if table.kinds.get(column.name, "number") == "number":
        return column.to_numpy("float32")
    return column.astype(object).where(column.notna(), "").astype(str).to_numpy(object)
