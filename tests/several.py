"""Trains as one member of a cluster, or alone, and prints what came of it as JSON."""

import json
import sys

import keras

import helpers
from helpers.learning.export import scores
from tests.trained import table

seen = []
rooms = table()
with helpers.strategy(timeout_s=float(sys.argv[1])).scope():
    keras.utils.set_random_seed(0)
    inputs, x = helpers.encode(rooms)
    x = keras.layers.Dense(8, activation="tanh")(x)
    model = keras.Model(inputs, helpers.decode(rooms, x))
    model.compile(
        keras.optimizers.SGD(1e-4), "mse", metrics=["mae"],
        steps_per_execution=helpers.steps_per_execution(4),
    )  # fmt: skip
    saved = helpers.checkpoints(model, steps_per_epoch=4)
history = model.fit(
    helpers.batches(rooms, rooms.train, batch_size=23, seed=1),  # 3 × 23 and 11 rows
    epochs=int(sys.argv[2]) if sys.argv[2:] else 3,
    steps_per_epoch=4,
    validation_data=helpers.batches(rooms, rooms.test, batch_size=19),  # 19 and 1 row
    callbacks=saved.beside(
        keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append(epoch),
            on_train_batch_end=lambda batch, logs: print("trains", flush=True),
        )
    ),
    verbose=0,
)
rows = helpers.batches(rooms, rooms.test, batch_size=20)
features = helpers.batches(rooms, rooms.test[["size", "kind"]], batch_size=19)
said = {
    "weights": [number for w in model.trainable_variables for number in w.numpy().flat],
    "history": history.history,
    "seen": seen,
    "evaluate": model.evaluate(rows, verbose=0),
    "predict": model.predict(features, verbose=0).tolist(),
    "scores": scores(model, rooms, rooms.test)["price"].tolist(),
}
print(json.dumps(said, default=float))
