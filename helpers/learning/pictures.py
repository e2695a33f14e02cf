"""Pictures as tensors: a served model decodes a file exactly as training did."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import tensorflow as tf

from helpers.errors import CloudError, DataError
from helpers.inputs.answers import answer_frame
from helpers.inputs.picture_folders import Images
from helpers.learning.batches import of_arrays

MEMORY_BYTES = 2 * 2**30  # decoded pictures up to this are kept, more are decoded every epoch


def decode(image_bytes, size: int) -> tf.Tensor:
    """The content of JPEG or PNG files as pictures of one size; part of the served model.

    Args:
        image_bytes: (n,) strings.
    Returns:
        (n, size, size, 3) uint8, red, green and blue from 0 to 255; sides are stretched to fit.
    """

    def one(content):
        picture = tf.io.decode_image(content, channels=3, expand_animations=False)
        picture = tf.ensure_shape(picture, [None, None, 3])
        picture = tf.image.resize(picture, [size, size], antialias=True)
        return tf.cast(tf.clip_by_value(tf.round(picture), 0, 255), "uint8")

    about = tf.TensorSpec([size, size, 3], "uint8")
    return tf.map_fn(one, tf.convert_to_tensor(image_bytes), fn_output_signature=about)


@contextlib.contextmanager
def downloading(what: str) -> Iterator[None]:
    """Around what makes Keras download something: says what can be done where it can't.

    Raises:
        CloudError: the address did not answer.
    """
    try:
        yield
    except Exception as error:  # Keras has no class of its own for it
        if "URL fetch failure" not in str(error):
            raise
        address, _, why = str(error).partition(" on ")[2].partition(": ")
        raise CloudError(
            f'The {what} can\'t be downloaded from {address} ({why}). Set WEIGHTS = "" to learn '
            "from nothing, or run where that address answers; what was downloaded once is kept in "
            "~/.keras."
        ) from error


def batches(
    images: Images,
    frame: pd.DataFrame,
    *,
    size: int,
    batch_size: int,
    seed: int | None = None,
    start_epoch: int = 0,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Pictures and class numbers as model input; of several workers each gets its share.

    Up to 2 GiB of pixels are decoded once and kept in memory; more are read and decoded every
    epoch, on all cores, beside training.

    Args:
        frame: `images.train` or `images.test`, or rows of them.
        seed, start_epoch, start_step: as of `helpers.batches`.
    Returns:
        ((batch, size, size, 3) uint8, (batch,) int64).
    Raises:
        DataError: TensorFlow can't decode a file; where they don't fit into memory its own
            InvalidArgumentError comes during training.
    """
    places = {name: place for place, name in enumerate(images.classes)}
    labels = frame["label"].map(places).to_numpy("int64")
    paths = tf.constant(frame["path"].to_numpy(str))
    where = {"seed": seed, "start_epoch": start_epoch, "start_step": start_step}

    def load(names):
        return decode(tf.map_fn(tf.io.read_file, names), size)

    if len(frame) * size * size * 3 > MEMORY_BYTES:
        return of_arrays(paths, labels, batch_size=batch_size, load=load, **where)
    try:
        parts = list(of_arrays(paths, batch_size=64, load=load))
    except tf.errors.InvalidArgumentError as error:
        raise _named(frame, size) from error
    return of_arrays(tf.concat(parts, axis=0), labels, batch_size=batch_size, **where)


def _named(frame: pd.DataFrame, size: int) -> DataError:
    """Which files TensorFlow can't decode."""
    bad = []
    for name, path in frame["path"].items():
        try:
            decode([Path(path).read_bytes()], size)
        except tf.errors.InvalidArgumentError:
            bad.append(name)
    more = f" and {len(bad) - 6} more" if len(bad) > 6 else ""
    return DataError(
        f"TensorFlow can't decode {', '.join(bad[:6])}{more}, though Pillow can; expected whole "
        "JPEG or PNG files. Save them again, or take them out."
    )


def scores(model, images: Images, frame: pd.DataFrame, *, size: int) -> pd.DataFrame:
    """Score pictures with a model in memory.

    Returns:
        (n, 1 + classes) as `helpers.predict` gives them of the served model: the class and a
        probability each.
    """
    parts = batches(images, frame, size=size, batch_size=256)
    call = tf.function(lambda x: model(x, training=False), reduce_retracing=True)
    found = np.concatenate([call(x).numpy() for x, _ in parts])
    return answer_frame(images.target, images.classes, found, frame.index)
