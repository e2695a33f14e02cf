"""The kinds of models that people bring, each left in FOLDER/KIND as its notebook would leave it:
as cheaply trained as possible, and with no more of `helpers` than `export`.

Run as a process of its own, so that a test worker need not import TensorFlow. `answers.npz` holds
some inputs and what the model in memory says to them.
"""

import os
import sys
from pathlib import Path

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
        pictures = draw.integers(0, 255, (6, 40, 40, 3), "uint8")
        files = [tf.io.encode_png(picture).numpy() for picture in pictures]
        base = keras.applications.MobileNet((32, 32, 3), 0.25, include_top=False, weights=None)
        image = keras.Input((32, 32, 3))
        h = L.GlobalAveragePooling2D()(base(L.Rescaling(1 / 127.5, offset=-1)(image)))
        model = keras.Model(image, L.Dense(2, activation="softmax")(h))
        names = tf.constant(["cat", "dog"])
        def read(file):
            return tf.image.resize(tf.io.decode_image(file, 3, expand_animations=False), (32, 32))
        def serve(image_bytes):
            shares = model(tf.map_fn(read, image_bytes, fn_output_signature=tf.float32))
            return {"animal": tf.gather(names, tf.argmax(shares, 1)), "probabilities": shares}
        (out / "pictures").mkdir(parents=True)
        for number, file in enumerate(files):
            (out / "pictures" / f"{number}.png").write_bytes(file)
        keep(np.array(files, object), serve(tf.constant(files)))
        helpers.export(model, serve=serve, examples=(files, ["cat", "dog"] * 3))""",
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
        out.mkdir()
        model.save(out / "model.keras")""",
    "signatures": """
        class Own(tf.Module):
            @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float16, "half")])
            def double(self, half):
                return {"doubled": half * 2, "yes": half[:, 0] > 0}
            @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int64, "ids")])
            def total(self, ids):
                return {"total": tf.reduce_sum(ids, 1)}
        own = Own()
        calls = {"serving_default": own.double, "total": own.total}
        tf.saved_model.save(own, str(out / "model" / "1"), signatures=calls)""",
}  # scikit-learn's kind is refused


if __name__ == "__main__":
    import pickle
    import textwrap

    import keras
    import numpy as np
    import tensorflow as tf

    import helpers

    for kind, source in NOTEBOOKS.items():
        out = Path(sys.argv[1], kind)
        os.environ["OUTPUT_DIR"] = str(out)
        keras.utils.set_random_seed(3)

        def fitted(model, x, y, loss):
            model.compile("adam", loss)
            model.fit(x, y, epochs=1, verbose=0)
            return model

        def keep(x, answers, path=Path(sys.argv[1], f"{kind}.pickle")):
            answers = tf.nest.map_structure(np.asarray, answers)
            path.write_bytes(pickle.dumps((x, answers)))

        names = {
            "keras": keras, "tf": tf, "np": np, "L": keras.layers, "helpers": helpers, "out": out,
            "CLASSES": "sparse_categorical_crossentropy", "draw": np.random.default_rng(1),
            "fitted": fitted, "keep": keep,
        }  # fmt: skip
        exec(textwrap.dedent(source), names)  # noqa: S102
