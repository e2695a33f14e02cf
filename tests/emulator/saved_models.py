"""Tiny SavedModels for the tests of serving, made by a process of its own:

    python -m tests.emulator.saved_models FOLDER

`one`, `two`: y = a·w + b·v; `add`: of rows of two, a + 10 b; `words`: a look-up table, text and
number out; `slow`: takes about a millisecond a round; `looker`: how many files it sees at a path;
`kinds`: a signature for each kind of number, text, shape and state.
"""

import base64
import json
import sys
from pathlib import Path

import pytest

from helpers import storage
from helpers.cloud import buckets
from tests import once

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAIAAAD91JpzAAAAFklEQVR4nGPgEpHTMLJhcAuIYmRiBgAMogHJSJv7"
    "8wAAAABJRU5ErkJggg=="
)
# Signature of `kinds` → its inputs, as a client would write them.
ASKED = {
    "half": {"x": [1.5, 2]}, "brain": {"x": [1.5, 2]}, "double": {"x": [[[1, 2, 3]] * 4]},
    "bytes": {"x": [[1, 2, 3], [4, 5, 255]]}, "flags": {"n": [1, 2], "on": [True, False]},
    "image": {"x": [{"b64": base64.b64encode(PNG).decode()}]}, "loop": {"x": [[1, 2, 3.5]]},
    "vocabulary": {"x": ["a", "q", "b"]}, "ragged": {"x": ["a b c", "d"]}, "one": {"x": 3.0},
    "fixed": {"x": [[1, 2]]},
}  # fmt: skip
ROWS = [{"a": a / 3, "word": word} for a in range(-3, 4) for word in ("x", "y", "ünknown", "")]


@pytest.fixture(scope="session")
def saved_models(tmp_path_factory) -> Path:
    """A folder with one folder a model (with its version 1/ in it) and words.json: what the saved
    model itself answers for `ROWS`."""
    return once.made(tmp_path_factory, "tests.emulator.saved_models")


def register(emulator, folder: Path, name: str, *, parent: str = "", image: str = "", **model):
    """Upload a model folder to the bucket and register it; the operation's response."""
    session, uri = emulator.session, f"gs://local-bucket/{name}/"
    buckets.create_bucket(session)
    storage.upload_folder(session, folder, uri)
    spec = {"imageUri": image or "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"}
    if image:
        spec |= {
            "command": ["/usr/bin/tensorflow_model_server"],
            "args": ["--model_name=model", "--model_base_path=$(AIP_STORAGE_URI)",
                     "--rest_api_port=8080", "--port=8500"],
            "ports": [{"containerPort": 8080}],
            "predictRoute": "/v1/models/model:predict",
            "healthRoute": "/v1/models/model",
        }  # fmt: skip
    about = {"displayName": name, "artifactUri": uri, "containerSpec": spec} | model
    body = {"model": about} | ({"parentModel": parent} if parent else {"modelId": name})
    models = session.service("aiplatform").projects().locations().models()
    return session.wait(session.call(models.upload(parent=emulator.parent, body=body)))


def main(folder: Path) -> None:
    import tensorflow as tf

    def save(name: str, function, module: tf.Module, **inputs: str) -> None:
        spec = {key: tf.TensorSpec([None], kind, name=key) for key, kind in inputs.items()}
        signature = tf.function(function, input_signature=[spec]).get_concrete_function()
        signatures = {"serving_default": signature}
        tf.saved_model.save(module, str(folder / name / "1"), signatures=signatures)

    for name, factor in {"one": 1.0, "two": 10.0}.items():
        module = tf.Module()
        module.w = tf.Variable([2 * factor, 3 * factor])
        save(name, lambda x, m=module: {"y": x["a"] * m.w[0] + x["b"] * m.w[1]}, module,
             a="float32", b="float32")  # fmt: skip

    spec = tf.TensorSpec([None, 2], name="x")
    add = tf.function(lambda x: x[:, 0] + 10 * x[:, 1], input_signature=[spec])
    call = add.get_concrete_function()
    tf.saved_model.save(tf.Module(), str(folder / "add" / "1"), signatures=call)

    module = tf.Module()
    module.w = tf.Variable(0.1)
    pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(["x", "y"]), tf.constant([1.0, 2.0]))
    module.table = tf.lookup.StaticHashTable(pairs, -1.0)

    def classify(x: dict) -> dict:
        value = x["a"] * module.table.lookup(x["word"]) * module.w
        name = tf.where(value > 0, tf.constant("größer"), tf.constant('"kleiner"'))
        return {"value": value, "class": name, "pair": tf.stack([value, -value], axis=1)}

    save("words", classify, module, a="float32", word="string")
    served = tf.saved_model.load(str(folder / "words" / "1")).signatures["serving_default"]
    columns = {key: tf.constant([row[key] for row in ROWS]) for key in ("a", "word")}
    answers = {name: value.numpy().tolist() for name, value in served(**columns).items()}
    answers["class"] = [text.decode() for text in answers["class"]]
    (folder / "words.json").write_text(json.dumps(answers))

    _kinds(folder / "kinds")

    def turn(x: dict) -> dict:
        start, wheel = x["rounds"][0], tf.eye(300)
        left, wheel = tf.while_loop(
            lambda i, _: i > 0, lambda i, w: (i - 1, tf.tanh(w @ wheel)), (start, wheel)
        )
        return {"y": x["rounds"] * 0 + tf.maximum(left, -tf.reduce_max(tf.abs(wheel)))}

    save("slow", turn, tf.Module(), rounds="float32")

    def look(x: dict) -> dict:
        sizes = tf.map_fn(
            lambda path: tf.size(tf.io.matching_files(path)), x["path"], fn_output_signature="int32"
        )
        return {"found": sizes}

    save("looker", look, tf.Module(), path="string")


def _kinds(folder: Path) -> None:
    """The model, and in kinds.json what it says of `ASKED`; the bytes of an input as text."""
    import tensorflow as tf

    module, keys = tf.Module(), tf.constant(["a", "b"])
    module.w = tf.Variable(tf.reshape(tf.range(6.0), [3, 2]) / 10)
    module.rows = tf.Variable(tf.reshape(tf.range(20.0), [5, 4]))
    module.count = tf.Variable(0.0)
    pairs = tf.lookup.KeyValueTensorInitializer(keys, tf.constant([0, 1], tf.int64))
    module.table = tf.lookup.StaticVocabularyTable(pairs, 2)

    def shown(file):
        return tf.cast(tf.io.decode_image(file, 3, expand_animations=False), tf.float32)

    def around(i, x):
        return i + 1, tf.tanh(x @ module.w @ tf.transpose(module.w))

    made = {
        "half": (lambda x: x * 2, {"x": ([None], tf.float16)}),
        "brain": (lambda x: tf.cast(x * 2, tf.bfloat16), {"x": ([None], tf.float32)}),
        "double": (lambda x: tf.reduce_sum(x, 2), {"x": ([None, None, 3], tf.float64)}),
        "bytes": (lambda x: tf.cast(x, tf.float32) @ module.w, {"x": ([None, 3], tf.uint8)}),
        "flags": (lambda n, on: tf.where(on, n, -n),
                  {"n": ([None], tf.int64), "on": ([None], tf.bool)}),
        "image": (lambda x: tf.map_fn(shown, x, fn_output_signature=tf.float32),
                  {"x": ([None], tf.string)}),
        "loop": (lambda x: tf.while_loop(lambda i, _: i < 5, around, (0, x))[1],
                 {"x": ([None, 3], tf.float32)}),
        "vocabulary": (lambda x: tf.gather(module.rows, module.table.lookup(x)),
                       {"x": ([None], tf.string)}),
        "ragged": (lambda x: tf.strings.split(x).to_tensor("-"), {"x": ([None], tf.string)}),
        "one": (lambda x: x * 2, {"x": ([], tf.float32)}),
        "fixed": (lambda x: x * 2, {"x": ([1, 2], tf.float32)}),
        "counted": (lambda x: x + module.count.assign_add(1.0), {"x": ([None], tf.float32)}),
    }  # fmt: skip
    signatures = {}
    for name, (call, inputs) in made.items():
        spec = {key: tf.TensorSpec(*about, key) for key, about in inputs.items()}
        signatures[name] = tf.function(call).get_concrete_function(**spec)
    tf.saved_model.save(module, str(folder / "1"), signatures=signatures)
    loaded, said = tf.saved_model.load(str(folder / "1")), {}
    for name, columns in ASKED.items():
        columns = {"x": [PNG]} if name == "image" else columns
        kinds = made[name][1]
        given = {key: tf.constant(values, kinds[key][1]) for key, values in columns.items()}
        (answer,) = loaded.signatures[name](**given).values()
        values = answer if answer.dtype == tf.string else tf.cast(answer, tf.float64)
        said[name] = _text(values.numpy().tolist())
    (folder.parent / "kinds.json").write_text(json.dumps(said))


def _text(value):
    if isinstance(value, list):
        return [_text(one) for one in value]
    return value.decode() if isinstance(value, bytes) else value


if __name__ == "__main__":
    main(Path(sys.argv[1]))
