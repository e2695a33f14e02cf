"""Small trained models in the folder named on the command line, as 01_prototype.ipynb leaves them:
`model` takes a number and a text, `numbers` two numbers and answers with a class, `other` does as
`numbers` but with other weights.

Run as a process of its own, so that a test worker need not import TensorFlow.
"""

import dataclasses
import json
import keyword
import random
import string
import sys
from pathlib import Path

import pandas as pd

import helpers
from helpers.inputs.table import Table
from tests.rooms import rooms


def numbers() -> Table:
    frame = rooms()
    frame["two"] = (frame["kind"] == "b").astype(float)
    frame["price"] = pd.cut(frame["price"], 3, labels=["low", "middle", "high"]).astype(object)
    return dataclasses.replace(
        table(), name="numbers", train=frame[:80], test=frame[80:], features=("size", "two"),
        kinds={"size": "number", "two": "number"}, task="multiclass", unit="",
        classes=("high", "low", "middle"), proposed=frame[["size", "two"]][80:81],
    )  # fmt: skip


def table() -> Table:
    frame = rooms()
    return Table(
        name="rooms", train=frame[:80], test=frame[80:], features=("size", "kind"),
        kinds={"size": "number", "kind": "text"}, target="price", task="regression", classes=(),
        unit="$", built_in=True, noise_mae=None, proposed=frame[["size", "kind"]][80:81], notes=(),
    )  # fmt: skip


def names() -> Table:
    """Columns of any names: those nobody can write in Python, twins, the longest, none at all."""
    draw = random.Random(6)
    odd = [*keyword.kwlist, "self", "inputs", "args", "kwargs", "training", "name", "a_b", "A_B"]
    odd += ["", " ", "a/b", "unit price (€)", "🎲", "é", "e\u0301", "x" * 300, "x" * 299, "%s", '"']
    signs = string.printable + "éÉßİıЖ中🎲\u0301"
    while len(set(odd)) < 200:
        odd.append("".join(draw.choices(signs, k=draw.randint(1, 12))))
    odd, frame = list(dict.fromkeys(odd)), rooms()
    columns = {name: frame["size"] * (i + 1) for i, name in enumerate(odd)}
    texts = odd[3:9]
    columns |= {name: frame["kind"].fillna("none") for name in texts}
    made = pd.DataFrame(columns | {"target of all": frame["price"]})
    kinds = {name: "text" if name in texts else "number" for name in odd}
    return dataclasses.replace(
        table(), name="names", train=made[:80], test=made[80:], features=tuple(odd), kinds=kinds,
        target="target of all", proposed=made[odd][80:81],
    )  # fmt: skip


if __name__ == "__main__":
    import keras

    from helpers.learning.export import scores

    folder = Path(sys.argv[1])
    for name, made in {
        "numbers": numbers(),
        "other": numbers(),
        "model": table(),
        "names": names(),
    }.items():
        keras.utils.set_random_seed(len(name))
        inputs, x = helpers.encode(made)
        x = keras.layers.Dense(8, activation="relu")(x)
        model = keras.Model(inputs, helpers.decode(made, x))
        helpers.export(model, made, folder / name)
        answers = scores(model, made, made.test[list(made.features)])
        answers.to_json(folder / f"{name}-answers.json")
    (folder / "metrics.json").write_text(json.dumps({"metrics": {"mae": 1.0}, "baselines": {}}))
