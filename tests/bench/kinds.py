"""Pictures and texts: training beside a hand-written loop, files through an endpoint."""

import contextlib
import statistics
import tempfile
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import helpers
from helpers import images, texts
from helpers.learning import pictures, sentences
from helpers.learning.serving import named_answers
from tests.bench import served

EPOCHS, ROUNDS, SIZE, FILES = 12, 5, 32, 4096
BATCH_SIZES = {
    kind: helpers.read_parameters(served.ROOT / f"notebooks/more/{kind}.ipynb")["BATCH_SIZE"]
    for kind in ("image", "text")
}
NOTE = """Examples a second in the notebooks' own batches, medians of five turns, ours and the limit
taking turns; the ratio is the median of the turns' ratios. The limit of training is a graph an
epoch over the same decoded pictures, or words as numbers, with the same network, that tells what
`fit` tells: an epoch's loss and accuracy. Tracing is left out on both sides. An epoch of the
built-in texts has 24 steps, and what Keras does once an epoch (4 to 5 ms) is a tenth of it; ten
times as many texts, the same drawn again, show training by itself. The `files` are the built-in
digits' PNG files, 4,096 a call: through `helpers.predict` and an endpoint of the local cloud,
beside the same SavedModel called in this process, 256 files at once."""


def rows() -> list[dict]:
    """One row a kind and way: `what`, `way`, `examples/s`, `of the limit`."""
    lines = []
    for what, (make, times, epochs) in {
        "pictures, training": (_pictures, 1, EPOCHS),
        "texts, training": (_texts, 1, EPOCHS),
        "ten times as many texts": (_texts, 10, 2),
    }.items():
        model, fed, x, y, batch_size = make(times)
        ways = {
            "fit, as the notebook does": _fit(model, fed, -(-len(y) // batch_size), epochs),
            "limit": _loop(model, x, y, batch_size, epochs),
        }
        lines += _lines(what, ways, len(y) * epochs)
    with _served() as (endpoint, call, files):
        ways = {
            "helpers.predict": lambda: helpers.predict(endpoint, files),
            "limit": lambda: [call(files[i : i + 256]) for i in range(0, FILES, 256)],
        }
        lines += _lines("files, decoded and scored", ways, FILES)
    return lines


def _lines(what: str, ways: dict, examples: int) -> list[dict]:
    for way in ways.values():
        way()  # traced, connected
    per_s = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            per_s[name].append(examples / (time.perf_counter() - start))
    return [
        {
            "what": what,
            "way": name,
            "examples/s": f"{statistics.median(found):,.0f}",
            "of the limit": round(
                statistics.median(a / b for a, b in zip(found, per_s["limit"], strict=True)), 2
            ),
        }
        for name, found in per_s.items()
    ]


def _pictures(times: int) -> tuple:
    found = images.load("digits")
    train = pd.concat([found.train] * times)
    x = keras.Input((SIZE, SIZE, 3), dtype="uint8")
    h = keras.layers.Rescaling(1 / 127.5, offset=-1)(keras.ops.cast(x, "float32"))
    for filters in (16, 32, 64):
        h = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(h)
        h = keras.layers.BatchNormalization()(h)
        h = keras.layers.MaxPooling2D()(keras.layers.Activation("relu")(h))
    h = keras.layers.Dropout(0.3)(keras.layers.Flatten()(h))
    model = keras.Model(x, keras.layers.Dense(10, activation="softmax")(h))
    batch_size = BATCH_SIZES["image"]
    how = {"size": SIZE, "batch_size": batch_size}
    whole = list(pictures.batches(found, train, **how))
    fed = pictures.batches(found, train, seed=0, **how)
    return model, fed, *(tf.concat(part, axis=0) for part in zip(*whole, strict=True)), batch_size


def _texts(times: int) -> tuple:
    found = texts.load("reviews")
    train = pd.concat([found.train] * times)
    words = texts.words(found.train["text"], 20_000)
    length = texts.length(found.train["text"], 200)
    vectorize = keras.layers.TextVectorization(output_sequence_length=length, vocabulary=words)
    x = keras.Input((length,), dtype="int32")
    h = keras.layers.Embedding(len(words) + 2, 32)(x)
    h = keras.layers.Conv1D(64, 7, padding="same", activation="relu")(h)
    h = keras.layers.Dropout(0.4)(keras.layers.GlobalMaxPooling1D()(h))
    model = keras.Model(x, keras.layers.Dense(2, activation="softmax")(h))
    batch_size = BATCH_SIZES["text"]
    how = {"vectorize": vectorize, "batch_size": batch_size}
    whole = list(sentences.batches(found, train, **how))
    fed = sentences.batches(found, train, seed=0, **how)
    return model, fed, *(tf.concat(part, axis=0) for part in zip(*whole, strict=True)), batch_size


def _fit(model: keras.Model, fed: tf.data.Dataset, steps: int, epochs: int):
    model.compile(
        keras.optimizers.AdamW(weight_decay=0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        steps_per_execution=helpers.steps_per_execution(steps),
    )
    model.optimizer.build(model.trainable_variables)
    return lambda: model.fit(fed, steps_per_epoch=steps, epochs=epochs, verbose=0)


def _loop(model: keras.Model, x: tf.Tensor, y: tf.Tensor, batch_size: int, epochs: int):
    model = keras.models.clone_model(model)
    adam = keras.optimizers.AdamW(weight_decay=0.01)
    adam.build(model.trainable_variables)
    error = keras.losses.SparseCategoricalCrossentropy()
    count = len(y)

    @tf.function(jit_compile=True)  # as Keras does by itself
    def step(x, y):
        with tf.GradientTape() as tape:
            answers = model(x, training=True)
            loss = error(y, answers)
        gradients = tape.gradient(loss, model.trainable_variables)
        adam.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        right = tf.equal(tf.argmax(answers, axis=1), tf.cast(y, "int64"))
        return tf.stack(
            [loss * tf.cast(tf.shape(y)[0], "float32"), tf.reduce_sum(tf.cast(right, "float32"))]
        )

    @tf.function
    def epoch():
        order, sums = tf.random.shuffle(tf.range(count)), tf.zeros(2)
        for place in tf.range(0, count, batch_size):
            index = order[place : place + batch_size]
            sums += step(tf.gather(x, index), tf.gather(y, index))
        return sums / count

    return lambda: [epoch().numpy() for _ in range(epochs)]


@contextlib.contextmanager
def _served():
    """An endpoint of the local cloud, the same model called here, and files for both."""
    found = images.load("digits")
    model, *_ = _pictures(1)

    def serve(image_bytes):
        return named_answers(found, model(pictures.decode(image_bytes, SIZE), training=False))

    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        made = helpers.export(model, folder=Path(folder, "model"), serve=serve)
        with served.place(Path(folder, "cloud")) as session:
            uri = helpers.storage.upload_folder(session, made.parent, "gs://local-bucket/k/model")
            endpoint = helpers.deploy(session, helpers.register(session, uri, name="kinds"))
            loaded = tf.saved_model.load(str(made))
            call = loaded.signatures["serving_default"]
            few, _ = images.examples(found)
            files = np.resize(few, FILES)
            yield endpoint, lambda part: call(tf.constant(part.tolist())), files
