"""The kinds of models that people bring, each with a notebook of its own that uses no more of
`helpers` than `export`; as cheaply trained as possible.

`write` makes the notebooks. Run as a process, this file runs their cells one kind after the other
and leaves in FOLDER/KIND what their jobs would: a test worker then need not import TensorFlow.
`answers.pickle` holds some inputs and what the model in memory says to them.
"""

import os
import sys
from pathlib import Path
from textwrap import dedent

PARAMETERS = """\
# @title Parameters
EPOCHS = 1  # @param {type:"integer", min:1}
RATE = 0.01  # @param {type:"number", min:0}
HOLD = False  # @param {type:"boolean"}"""
# A start that is held leaves only when it is stopped; the test then lets the next one go on.
HELD = """\
import time
print("begun", flush=True)
while HOLD:
    time.sleep(0.05)"""
CODE = """\
import json, os, pickle
from pathlib import Path
import keras, numpy as np, tensorflow as tf
import helpers
L, CLASSES = keras.layers, "sparse_categorical_crossentropy"
out, draw = Path(os.environ["OUTPUT_DIR"]), np.random.default_rng(1)
keras.utils.set_random_seed(3)
def keep(x, answers):
    answers = tf.nest.map_structure(np.asarray, answers)
    (out / "answers.pickle").write_bytes(pickle.dumps((x, answers)))
def measured(loss):
    (out / "metrics.json").write_text(json.dumps({"loss": loss}))"""
FIT = """\
def fitted(model, x, y, loss):
    model.compile(keras.optimizers.Adam(RATE), loss)
    history = model.fit(x, y, epochs=EPOCHS, verbose=2)
    measured(history.history["loss"][-1])
    return model"""
# The same, going on where it was stopped; held in its second epoch.
RESUMED = """\
import signal, threading, time
class Held(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        told, self.stopped = signal.getsignal(signal.SIGTERM), threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: (self.stopped.set(), told(*_)))
    def on_epoch_begin(self, epoch, logs=None):
        if HOLD and epoch == 1:
            print("begun", flush=True)
            self.stopped.wait()
def fitted(model, x, y, loss):
    if not model.built:
        model(tf.constant(x[:1]))
    model.compile(keras.optimizers.Adam(RATE), loss)
    saved = helpers.checkpoints(model, steps_per_epoch=2)
    history = model.fit(x, y, epochs=EPOCHS, batch_size=32, initial_epoch=saved.epoch,
                        callbacks=saved.beside(Held()), verbose=2)
    measured(history.history["loss"][-1])
    assert len(history.history["loss"]) == EPOCHS
    return model"""

NOTEBOOKS = {
    "image": """
        x, y = draw.integers(0, 255, (60, 8, 8), "uint8"), draw.integers(0, 3, 60)
        image = keras.Input((8, 8), dtype="uint8", name="image")
        h = L.Rescaling(1 / 255)(image)
        h = L.Flatten()(L.Conv2D(4, 3)(L.Reshape((8, 8, 1))(h)))
        model = fitted(keras.Model(image, L.Dense(3, activation="softmax")(h)), x, y, CLASSES)
        keep(x, model.predict(x, verbose=0))
        helpers.export(model, examples=(x, y))""",
    "text": """
        texts = [" ".join(draw.choice(["good", "bad", "dull", "fine"], 4)) for _ in range(60)]
        y = np.array([text.count("good") > text.count("bad") for text in texts], int)
        words = L.TextVectorization(20, output_sequence_length=4)
        words.adapt(texts)
        text = keras.Input((), dtype="string", name="text")
        h = L.GlobalAveragePooling1D()(L.Embedding(20, 4)(words(text)))
        model = keras.Model(text, L.Dense(1, activation="sigmoid")(h))
        model = fitted(model, tf.constant(texts), y, "binary_crossentropy")
        keep(texts, model.predict(tf.constant(texts), verbose=0))
        helpers.export(model, examples=(texts, y))""",
    "windows": """
        x, y = draw.normal(size=(60, 12, 2)), draw.normal(size=(60, 3))
        window = keras.Input((12, 2), name="window")
        model = fitted(keras.Model(window, L.Dense(3)(L.GRU(4)(window))), x, y, "mse")
        keep(x, model.predict(x, verbose=0))
        helpers.export(model, examples=(x, y))""",
    "several": """
        x = {"amounts": draw.normal(size=(60, 3)), "kind": draw.integers(0, 4, (60, 1), "int32")}
        y = {"price": draw.normal(size=60), "risk": draw.integers(0, 3, 60)}
        amounts = keras.Input((3,), name="amounts")
        kind = keras.Input((1,), name="kind", dtype="int32")
        h = L.Concatenate()([amounts, L.Flatten()(L.Embedding(4, 2)(kind))])
        outputs = {"price": L.Dense(1, name="price")(h),
                   "risk": L.Dense(3, activation="softmax", name="risk")(h)}
        model = keras.Model({"amounts": amounts, "kind": kind}, outputs)
        fitted(model, x, y, {"price": "mse", "risk": CLASSES})
        keep(x, model.predict(x, verbose=0))
        helpers.export(model, examples=(x, y))""",
    "subclassed": """
        class Scale(L.Layer):
            def build(self, shape):
                self.scale = self.add_weight(shape=shape[-1:], initializer="ones")
            def call(self, x):
                return x * self.scale
        class Mine(keras.Model):
            def __init__(self):
                super().__init__()
                self.scale, self.out = Scale(), L.Dense(2)
            def call(self, measured, training=False):
                return self.out(self.scale(measured))
        x, y = draw.normal(size=(60, 5)), draw.normal(size=(60, 2))
        model = fitted(Mine(), x, y, "mse")
        keep(x, model.predict(x, verbose=0))
        helpers.export(model, examples=(x, y))""",
    "application": """
        for number, picture in enumerate(draw.integers(0, 255, (6, 40, 40, 3), "uint8")):
            name = out / "pictures" / ("cat", "dog")[number % 2] / f"{number}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            name.write_bytes(tf.io.encode_png(picture).numpy())
        base = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None)
        base.trainable = False  # as those who have its weights begin
        image = keras.Input((32, 32, 3))
        h = L.GlobalAveragePooling2D()(base(L.Rescaling(1 / 127.5, offset=-1)(image)))
        model = keras.Model(image, L.Dense(2, activation="softmax")(h))
        folder = keras.utils.image_dataset_from_directory(out / "pictures", image_size=(32, 32))
        x, y = (np.concatenate(part) for part in zip(*folder))
        fitted(model, x, y, CLASSES)
        names = tf.constant(["cat", "dog"])
        def read(file):
            return tf.image.resize(tf.io.decode_image(file, 3, expand_animations=False), (32, 32))
        def serve(image_bytes):
            shares = model(tf.map_fn(read, image_bytes, fn_output_signature=tf.float32))
            return {"animal": tf.gather(names, tf.argmax(shares, 1)), "probabilities": shares}
        files = [path.read_bytes() for path in sorted((out / "pictures").rglob("*.png"))]
        keep(np.array(files, object), serve(tf.constant(files)))
        helpers.export(model, serve=serve, examples=(files, ["cat"] * 3 + ["dog"] * 3))""",
    "sequential": """
        x, y = draw.normal(size=(60, 9)), draw.normal(size=60)
        model = keras.Sequential([L.Dense(50, activation="relu"), L.Dense(1)])
        fitted(model, x, y, "mean_squared_error")
        keep(x, model.predict(x, verbose=0))
        helpers.export(model)""",
    "keras_file": """
        x, y = draw.normal(size=(60, 4)), draw.normal(size=60)
        model = fitted(keras.Sequential([keras.Input((4,), name="four"), L.Dense(1)]), x, y, "mse")
        keep(x, model.predict(x, verbose=0))
        model.save(out / "model.keras")""",
    "signatures": """
        class Own(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float16, "half")])
            def double(self, half):
                return {"doubled": half * 2, "yes": half[:, 0] > 0}
            @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, "ids")])
            def total(self, ids):
                return {"total": tf.reduce_sum(ids, 1)}
            @tf.function(input_signature=[tf.TensorSpec([None], tf.uint64, "ids"),
                                          tf.TensorSpec([None], tf.string, "words")])
            def kept(self, ids, words):
                return {"ids": ids, "code_bytes": tf.constant([b"\\xff"]) + words, "words": words}
        own = Own()
        measured(RATE)
        calls = {"serving_default": own.double, "total": own.total, "kept": own.kept}
        tf.saved_model.save(own, str(out / "model" / "1"), signatures=calls)""",
    "scikit-learn": """
        from sklearn.linear_model import LinearRegression
        helpers.export(LinearRegression().fit(draw.normal(size=(60, 2)), draw.normal(size=60)))""",
}


def write(kind: str, folder: Path, *, resumed: bool = False) -> Path:
    """A kind's notebook, as Colab saves it: no cell has a tag.

    Args:
        resumed: it uses `helpers.checkpoints`, too.
    """
    import nbformat

    cells = [PARAMETERS, CODE, RESUMED] if resumed else [PARAMETERS, HELD, CODE, FIT]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    made = nbformat.v4.new_notebook(metadata=kernel)
    made.cells = [nbformat.v4.new_code_cell(cell) for cell in [*cells, dedent(NOTEBOOKS[kind])]]
    nbformat.write(made, folder / f"{kind}.ipynb")
    return folder / f"{kind}.ipynb"


if __name__ == "__main__":
    for kind in NOTEBOOKS:
        if kind != "scikit-learn":  # TensorFlow Serving has no place for it
            os.environ["OUTPUT_DIR"] = str(Path(sys.argv[1], kind))
            Path(sys.argv[1], kind).mkdir(exist_ok=True)
            names = {}
            for cell in (PARAMETERS, CODE, FIT, dedent(NOTEBOOKS[kind])):
                exec(cell, names)  # noqa: S102
