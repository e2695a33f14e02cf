"""Rows as model input, from memory or from disk; an epoch's number alone gives their order."""

import os
from collections.abc import Callable

import pandas as pd
import tensorflow as tf

from helpers.errors import SettingError
from helpers.inputs import shards, wire
from helpers.learning.strategy import several


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
    take = _taking(table, columns, levels)
    if streamed:
        epoch = _of_files(frame.files, len(columns), take, seed)
    else:
        matrix = tf.constant(shards.matrix(frame, columns, levels))
        epoch = _of_memory(matrix, batch_size, take, seed)
    if seed is None:
        found = tf.data.Dataset.from_tensors(take(matrix)).rebatch(batch_size)
        size = -(-len(frame) // batch_size)
    else:
        found = _endless(epoch, batch_size, start_epoch, start_step)
        size = tf.data.INFINITE_CARDINALITY
    # without it Keras, which runs many steps in one call, warns at the end of the rows
    found = found.apply(tf.data.experimental.assert_cardinality(size))
    return _shared(found, weighted=seed is not None and labelled, labelled=labelled)


def _taking(table, columns: tuple[str, ...], levels: dict) -> Callable:
    """A function from rows of numbers (n, columns) to a model's input, (n,) each, and labels."""
    names = wire.input_names(table.features)
    texts = {name: tf.constant([*levels[name], "\0"]) for name in levels}

    def take(matrix):
        parts = dict(zip(columns, tf.unstack(matrix, len(columns), axis=1), strict=True))
        labels = parts.pop(table.target, None)
        for name in parts.keys() & texts.keys():
            parts[name] = tf.gather(texts[name], tf.cast(parts[name], "int32"))
        parts = {names[column]: part for column, part in parts.items()}
        if labels is None:
            return parts
        return parts, labels if table.task == "regression" else tf.cast(labels, "int64")

    return take


def _of_files(files: list[str], columns: int, take: Callable, seed: int) -> Callable:
    """An epoch's rows of files on disk: the files in a new order, and the rows within each."""
    files = tf.constant(files)

    def epoch(number) -> tf.data.Dataset:
        def part(file):
            values = tf.io.decode_raw(tf.io.read_file(file), "float32")
            return take(_mixed(tf.reshape(values, [-1, columns]), [seed, number]))

        return tf.data.Dataset.from_tensor_slices(_mixed(files, [seed, number])).map(part)

    return epoch


def _of_memory(whole, batch_size: int, take: Callable, seed: int | None) -> Callable:
    """An epoch's rows in memory, in pieces: far faster than a batch at a time.

    Args:
        whole: a tensor, or several in any nesting, with a row each per example.
        take: makes a model's input of some of these rows.
    """
    parts = tf.nest.flatten(whole)
    row_bytes = sum(max(4, part.dtype.size) * part.shape[1:].num_elements() for part in parts)
    piece = max(batch_size, shards.PART_BYTES // row_bytes)

    def some(index):
        return take(tf.nest.map_structure(lambda part: tf.gather(part, index), whole))

    def epoch(number) -> tf.data.Dataset:
        order = _mixed(tf.range(len(parts[0])), [seed, number])
        return tf.data.Dataset.from_tensors(order).rebatch(piece).map(some)

    return epoch


def _endless(epoch: Callable, batch_size: int, start_epoch: int, start_step: int):
    """Batches of epoch after epoch."""
    epochs = tf.data.Dataset.counter(start_epoch)
    return epochs.flat_map(lambda number: epoch(number).rebatch(batch_size)).skip(start_step)


def _mixed(values: tf.Tensor, seed: list) -> tf.Tensor:
    return tf.random.experimental.stateless_shuffle(values, seed)


def of_arrays(
    x,
    y=None,
    *,
    batch_size: int,
    seed: int | None = None,
    start_epoch: int = 0,
    start_step: int = 0,
    load: Callable | None = None,
) -> tf.data.Dataset:
    """Arrays as model input, in the same orders and shares as `batches` gives rows.

    Args:
        x: (n, …) array or tensor, or a dict of these.
        y: (n, …) labels, or None.
        seed: None gives one pass in order. A number gives epoch after epoch without end; give
            `steps_per_epoch` to fit.
        start_epoch, start_step: where training that stopped goes on.
        load: makes a batch of x what the model takes, such as files' names into pictures; on all
            cores, beside training.
    Returns:
        (x, y) a batch, or x alone. An epoch's last batch holds what is left.
    """
    if batch_size < 1:
        raise SettingError(f"batch_size={batch_size}; expected 1 or more.")
    labelled = y is not None
    whole = tf.nest.map_structure(tf.constant, (x, y) if labelled else (x,))
    if seed is None:
        rows = len(tf.nest.flatten(whole)[0])
        found = tf.data.Dataset.from_tensors(whole).rebatch(batch_size)
        found = found.apply(tf.data.experimental.assert_cardinality(-(-rows // batch_size)))
    else:
        epoch = _of_memory(whole, batch_size, lambda rows: rows, seed)
        found = _endless(epoch, batch_size, start_epoch, start_step)
    weighted = seed is not None and labelled
    return _shared(found, weighted=weighted, labelled=labelled, load=load)


def _shared(
    found: tf.data.Dataset, *, weighted: bool, labelled: bool, load: Callable | None = None
) -> tf.data.Dataset:
    """Whole batches alone; of several workers each gets its share of every batch's rows."""

    def loaded(dataset: tf.data.Dataset) -> tf.data.Dataset:
        if load is None:
            return _beside(dataset if labelled else dataset.map(_first))
        cores = os.cpu_count() or 1
        dataset = dataset.map(
            lambda x, *rest: (load(x), *rest) if labelled else load(x),
            num_parallel_calls=cores,
            deterministic=True,
        )
        return dataset.prefetch(2)

    def share(about) -> tf.data.Dataset:
        workers, place = about.num_input_pipelines, about.input_pipeline_id

        def mine(*batch):
            total = tf.shape(tf.nest.flatten(batch)[0])[0]
            size = -(-total // workers)
            kept = tf.nest.map_structure(lambda x: x[place * size : (place + 1) * size], batch)
            if not weighted:
                return kept
            # a worker's loss is the mean of its own rows, of which the last batch has unlike many
            own = tf.shape(kept[1])[0]
            weight = tf.cast(workers * own, "float32") / tf.cast(total, "float32")
            return (*kept, tf.fill([own], weight))

        return loaded(found.map(mine))

    together = several()
    return together.distribute_datasets_from_function(share) if together else loaded(found)


def _first(*batch):
    return batch[0]


def _beside(batches: tf.data.Dataset) -> tf.data.Dataset:
    """Make batches beside the training step, which needs the cores more than this does."""
    options = tf.data.Options()
    options.threading.max_intra_op_parallelism = 1
    options.autotune.enabled = False
    return batches.prefetch(2).with_options(options)


def steps_per_execution(steps_per_epoch: int) -> int:
    """How many training steps Keras should run in one call, so that Python does not slow it.

    A divisor of `steps_per_epoch`, because an execution must not cross an epoch: the largest up to
    512, or the next larger one where that is under 32. 1 under several workers.
    """
    if several():
        return 1
    divisors = [n for n in range(1, steps_per_epoch + 1) if steps_per_epoch % n == 0]
    small = max(n for n in divisors if n <= 512)
    return small if small >= 32 else next((n for n in divisors if n > 512), small)
