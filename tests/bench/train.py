"""Training at the 2020 article's size: its own `fit`, ours, and the hand-written limit."""

import statistics
import time

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

import helpers
from helpers import data
from helpers.learning.export import scores

BATCH_SIZE, EPOCHS, ROUNDS = 32, 50, 5
NOTE = """Medians of five turns, the ways interleaved; building the model is left out. The test
error shows that the faster ways learn the same. The prototype notebook gets closer to the noise by
decaying its rate and its weights."""


def rows() -> list[dict]:
    """Time each way `ROUNDS` times, in turns, so that a busy machine hurts all of them alike.

    Returns:
        One row a way: `way`, `seconds` (median, model building left out), `fastest`, `ratio` of
        the medians to the article's, `test_mae` in the target's unit.
    """
    table = data.load("game_sales")
    ways = {
        "article: fit on NumPy arrays": article,
        "ours: encode, batches, steps_per_execution": ours,
        "limit: hand-written loop in one graph": limit,
    }
    for way in ways.values():
        way(table, 1, BATCH_SIZE)  # first use of TensorFlow's parts
    runs = [
        {name: way(table, EPOCHS, BATCH_SIZE) for name, way in ways.items()} for _ in range(ROUNDS)
    ]
    seconds = {name: [run[name][0] for run in runs] for name in ways}
    first = statistics.median(seconds[next(iter(ways))])
    return [
        {
            "way": name,
            "seconds": round(statistics.median(taken), 2),
            "fastest": round(min(taken), 2),
            "ratio": round(statistics.median(taken) / first, 2),
            "test_mae": round(statistics.mean(run[name][1] for run in runs)),
        }
        for name, taken in seconds.items()
    ]


def _hidden(x):
    for units in (50, 100, 50):
        x = keras.layers.Dense(units, activation="relu")(x)
    return x


def _scaled(table) -> tuple[np.ndarray, ...]:
    """The article's way: all columns squeezed to 0…1 before the model sees them."""
    columns = [*table.features, table.target]
    train, test = table.train[columns].to_numpy("float32"), table.test[columns].to_numpy("float32")
    low, high = train.min(axis=0), train.max(axis=0)
    train, test = (train - low) / (high - low), (test - low) / (high - low)
    return train[:, :-1], train[:, -1], test[:, :-1], low[-1], high[-1]


def _mae(table, answers: np.ndarray) -> float:
    answers = pd.DataFrame({table.target: answers}, index=table.test.index)
    return data.score(table, answers)["mae"]


def article(table, epochs: int, batch_size: int) -> tuple[float, float]:
    keras.utils.set_random_seed(0)
    x, y, unseen, low, high = _scaled(table)
    inputs = keras.Input((x.shape[1],))
    model = keras.Model(inputs, keras.layers.Dense(1)(_hidden(inputs)))
    model.compile("adam", "mean_squared_error")
    start = time.perf_counter()
    model.fit(x, y, batch_size=batch_size, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    return seconds, _mae(table, model(unseen).numpy()[:, 0] * (high - low) + low)


def ours(table, epochs: int, batch_size: int) -> tuple[float, float]:
    keras.utils.set_random_seed(0)
    inputs, x = helpers.encode(table)
    model = keras.Model(inputs, helpers.decode(table, _hidden(x)))
    rows = data.rows(table)
    steps = -(-len(rows) // batch_size)
    model.compile("adam", "mse", steps_per_execution=helpers.steps_per_execution(steps))
    start = time.perf_counter()
    model.optimizer.build(model.trainable_variables)
    batches = helpers.batches(table, rows, batch_size=batch_size, seed=0)
    model.fit(batches, steps_per_epoch=steps, epochs=epochs, verbose=0)
    seconds = time.perf_counter() - start
    return seconds, _mae(table, scores(model, table, table.test)[table.target].to_numpy())


def limit(table, epochs: int, batch_size: int) -> tuple[float, float]:
    keras.utils.set_random_seed(0)
    x, y, unseen, low, high = _scaled(table)
    inputs = keras.Input((x.shape[1],))
    model = keras.Model(inputs, keras.layers.Dense(1)(_hidden(inputs)))
    adam = keras.optimizers.Adam()
    adam.build(model.trainable_variables)
    x, y, rows = tf.constant(x), tf.constant(y), len(x)

    @tf.function
    def train():
        for _ in tf.range(epochs):
            order = tf.random.shuffle(tf.range(rows))
            for step in tf.range(-(-rows // batch_size)):
                index = order[step * batch_size : (step + 1) * batch_size]
                with tf.GradientTape() as tape:
                    error = model(tf.gather(x, index), training=True)[:, 0] - tf.gather(y, index)
                    loss = tf.reduce_mean(tf.square(error))
                gradients = tape.gradient(loss, model.trainable_variables)
                adam.apply_gradients(zip(gradients, model.trainable_variables, strict=True))

    start = time.perf_counter()
    train()
    seconds = time.perf_counter() - start
    return seconds, _mae(table, model(unseen).numpy()[:, 0] * (high - low) + low)
