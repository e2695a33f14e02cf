"""A small trained model in the folder named on the command line, as 01_prototype.ipynb leaves it.

Run as a process of its own, so that a test worker need not import TensorFlow.
"""

import json
import sys
from pathlib import Path

import keras

import helpers
from helpers.data import Table
from tests.rooms import rooms


def table() -> Table:
    frame = rooms()
    return Table(
        name="rooms", train=frame[:80], test=frame[80:], features=("size", "kind"),
        kinds={"size": "number", "kind": "text"}, target="price", task="regression", classes=(),
        unit="$", built_in=True, noise_mae=None, proposed=frame[["size", "kind"]][80:81], notes=(),
    )  # fmt: skip


if __name__ == "__main__":
    folder, made = Path(sys.argv[1]), table()
    keras.utils.set_random_seed(0)
    inputs, x = helpers.encode(made)
    x = keras.layers.Dense(8, activation="relu")(x)
    model = keras.Model(inputs, helpers.decode(made, x))
    helpers.export(model, made, folder / "model")
    from helpers.model import scores

    answers = scores(model, made, made.test[list(made.features)])
    answers.to_json(folder / "answers.json")
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"mae": 1.0}, "baselines": {}}))
