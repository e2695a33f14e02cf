"""The served forms of a model: its signatures as TensorFlow functions, the packed one too."""

import inspect
import re
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from helpers.errors import SettingError
from helpers.inputs import schema, wire
from helpers.inputs.answers import answer_names
from helpers.inputs.signature import DEFAULT, Signature, Tensor

# What TensorFlow Serving neither reads nor writes as JSON, and what is served in its place.
# Source: tensorflow_serving/util/json_tensor.cc; github.com/tensorflow/serving issue 1639
SERVED_AS = {"float16": "float32", "bfloat16": "float32", "uint16": "int32"}


def named_answers(table, found) -> dict[str, tf.Tensor]:
    """A model's (n, 1) numbers, or (n, classes) probabilities, as clients get them.

    Args:
        table: what was learned from: its `task`, `target` and `classes` are used, so pictures and
            texts do as well as a table.
    Returns:
        {target: (n,)} of a regression; else {target: the likeliest class, probability_…: (n,)}.
    """
    if table.task == "regression":
        return {table.target: found[:, 0]}
    best = tf.gather(tf.constant(table.classes), tf.argmax(found, axis=1))
    shares = tf.unstack(found, len(table.classes), axis=1)
    return dict(zip(answer_names(table.target, table.classes), [best, *shares], strict=True))


def of_table(model: keras.Model, table) -> tuple[tf.Module, dict]:
    """What to save of a model between `encode` and `decode`, and its signatures."""
    names = wire.input_names(table.features)
    texts = [names[column] for column in table.features if table.kinds[column] != "number"]

    def serve(**columns):
        return named_answers(table, model(columns, training=False))

    def packed(rows, words=None):
        inputs = {names[column]: Tensor("float32", (None,)) for column in table.features}
        columns = _unpack(rows, inputs)
        for name in texts:
            columns[name] = tf.gather(words, tf.cast(columns[name], "int32"))
        found = model(columns, training=False)
        found = found[:, 0] if table.task == "regression" else found
        return {"answers_bytes": tf.io.serialize_tensor(found)[None]}

    spec = {name: tf.TensorSpec([None], x.dtype, name) for name, x in model.input.items()}
    signatures = {DEFAULT: tf.function(serve).get_concrete_function(**spec)}
    signatures[schema.packed(table)] = _of_rows(packed, *([wire.WORDS] if texts else []))
    return _module(model, signatures), signatures


def of_model(model, serve: Callable | None, x) -> tuple[tf.Module, dict]:
    """What to save of any Keras model, or of a function that calls it, and its signatures.

    Args:
        x: example inputs or None; they say what can't be known otherwise.
    """
    call, spec = _of_function(serve, x) if serve else _of_call(model, x)
    names = wire.input_names(spec)

    def default(**tensors):
        own = {name: tf.cast(tensors[names[name]], about.dtype) for name, about in spec.items()}
        return _outputs(call(own), model)

    given = {
        names[name]: tf.TensorSpec(about.shape, _served(about.dtype), names[name])
        for name, about in spec.items()
    }
    try:
        signatures = {DEFAULT: tf.function(default, autograph=False).get_concrete_function(**given)}
    except Exception as error:
        shown = ", ".join(f"{name} ({_tensor(about)})" for name, about in given.items())
        said = str(error).strip().splitlines()[0][:300]
        raise SettingError(
            f"The model does not take {shown}: {type(error).__name__}: {said} Say what it takes "
            "with examples=(x, y) or serve=function (helpers.export explains both)."
        ) from error
    outputs = signatures[DEFAULT].structured_outputs
    known = Signature(
        {name: _tensor(given[name]) for name in sorted(given)},
        {name: _tensor(outputs[name]) for name in sorted(outputs)},
    )

    for name, about in (known.inputs | known.outputs).items():
        if about.dtype.startswith("complex"):
            raise SettingError(
                f'"{name}" is {about}; TensorFlow Serving has no JSON for complex numbers. Give '
                "serve=, a function of real and imaginary parts, that calls the model."
            )

    def packed(rows):
        return _serialized(default(**_unpack(rows, known.inputs)))

    if name := wire.packed_name(known):
        signatures[name] = _of_rows(packed)
    return _module(model, signatures), signatures


def _of_rows(packed: Callable, *more: str):
    given = [tf.TensorSpec([None], "string", name) for name in (wire.ROWS, *more)]
    return tf.function(packed, autograph=False).get_concrete_function(*given)


def _unpack(rows, inputs: dict[str, Tensor]) -> dict:
    """Blocks of rows, each a string of bytes (see wire.py), as the inputs."""
    kind = wire.record_dtype(inputs)
    one = [int(np.prod(about.shape[1:])) for about in inputs.values()]  # numbers in a row
    sizes = [
        count if kind == about.dtype else count * tf.as_dtype(about.dtype).size
        for count, about in zip(one, inputs.values(), strict=True)
    ]
    values = tf.reshape(tf.io.decode_raw(rows, kind), [-1, sum(sizes)])
    if max(sizes) == 1:
        parts = [part[:, None] for part in tf.unstack(values, axis=1)]
    else:
        parts = tf.split(values, sizes, axis=1)
    return {
        name: _as(part, about, kind)
        for (name, about), part in zip(inputs.items(), parts, strict=True)
    }


def _as(part, about: Tensor, kind: str):
    if kind != about.dtype:
        size = tf.as_dtype(about.dtype).size
        shape = [-1, *about.shape[1:]] + [size] * (size > 1)
        return tf.bitcast(tf.reshape(part, shape), about.dtype)
    return tf.reshape(part, [-1, *about.shape[1:]])


def _serialized(outputs: dict) -> dict:
    """Numbers as bytes, named as TensorFlow Serving wants what it writes in base64."""
    return {
        name if x.dtype == tf.string else f"{name}_bytes": x
        if x.dtype == tf.string
        else tf.io.serialize_tensor(x)[None]
        for name, x in outputs.items()
    }


def _module(model, signatures: dict) -> tf.Module:
    """Holds what the signatures use: variables, and the lookup tables of preprocessing layers."""
    module = tf.Module()
    module.weights = [weight.value for weight in getattr(model, "weights", [])]
    module.others = [v for function in signatures.values() for v in function.variables]
    kind = tf.saved_model.experimental.TrackableResource
    reached = tf.train.TrackableView(model).descendants()
    module.resources = [resource for resource in reached if isinstance(resource, kind)]
    return module


def named_examples(model, examples):
    """Examples whose x or y is a list in the model's order, as `fit` takes several, by name."""
    if not (isinstance(examples, tuple | list) and len(examples) == 2):
        return examples
    x, y = examples
    inputs, outputs = _input_names(model), len(getattr(model, "outputs", None) or ())
    if not inputs and isinstance(model, keras.layers.Layer):
        if not model.built:
            _call_once(model, x)
        inputs = list(_of_shapes(model)[1])
    if len(inputs) == _lists(x) > 1:
        x = dict(zip(inputs, x, strict=True))
    if outputs == _lists(y) > 1 and not isinstance(model.output, dict):
        y = dict(zip(_output_names(model, outputs), y, strict=True))
    return x, y


def _lists(values) -> int:
    """How many lists or arrays a list holds, if nothing else."""
    sized = isinstance(values, list | tuple) and all(hasattr(v, "__len__") for v in values)
    return len(values) if sized and not any(isinstance(v, str | bytes) for v in values) else 0


def _input_names(model) -> list[str]:
    """A Keras model's inputs in its order; Keras counts those nobody named over all models, and a
    name should be the same in the next version."""
    names = [tensor.name for tensor in getattr(model, "inputs", None) or ()]
    counted = [name for name in names if re.fullmatch(r"keras_tensor(_\d+)?", name)]
    plain = {name: f"keras_tensor_{n}" if n else "keras_tensor" for n, name in enumerate(counted)}
    return [plain.get(name, name) for name in names]


def _outputs(answers, model) -> dict:
    """Outputs by name: a dict's own keys, else the layers' that give them."""
    if not isinstance(answers, dict):
        answers = answers if isinstance(answers, list | tuple) else [answers]
        answers = dict(zip(_output_names(model, len(answers)), answers, strict=True))
    return _flat(answers, "")


def _output_names(model, count: int) -> list[str]:
    layers = list(getattr(model, "output_names", ()))
    unique = len(layers) == count == len(set(layers))
    return layers if unique else [f"output_{place}" for place in range(count)]


def _flat(answers, name: str) -> dict[str, tf.Tensor]:
    """Tensors of nested dicts and lists; `{"a": {"b": …}}` is "a_b"."""
    if not isinstance(answers, dict | list | tuple):
        tensor = tf.convert_to_tensor(answers)
        return {name: tf.cast(tensor, _served(tensor.dtype))}
    parts = answers.items() if isinstance(answers, dict) else enumerate(answers)
    start, found = f"{name}_" if name else "", {}
    for key, part in parts:
        found |= _flat(part, f"{start}{key}")
    return found


def _of_call(model, x) -> tuple[Callable, dict]:
    """The model's own call, from a dict of tensors; what it takes, by name."""
    if getattr(model, "inputs", None):
        specs = [tf.TensorSpec([None, *t.shape[1:]], t.dtype) for t in model.inputs]
        spec = dict(zip(_input_names(model), specs, strict=True))

        def call(given: dict):
            if isinstance(model, keras.Sequential):  # read from a file it knows no `input`
                return model(*given.values(), training=False)
            structure = keras.tree.pack_sequence_as(model.input, list(given.values()))
            return model(structure, training=False)

        return call, spec
    if not isinstance(model, keras.layers.Layer):
        return _of_function(model.__call__ if callable(model) else _nothing, x)
    if x is not None and not model.built:
        _call_once(model, x)
    call, shapes = _of_shapes(model)
    if x is not None:
        known = _spec_of(x, next(iter(shapes)))
        if _by_argument(model, x):
            return lambda given: model(**given), known
        return (call if set(known) == set(shapes) else model), known
    kind = _kind(model, len(shapes))
    spec = {name: tf.TensorSpec([None, *shape[1:]], kind) for name, shape in shapes.items()}
    return call, spec


def _of_shapes(model) -> tuple[Callable, dict[str, tuple]]:
    """How to call a subclassed model with a dict, and the shapes it was built with, by name."""
    shapes = getattr(model, "_build_shapes_dict", None)
    if not model.built or not shapes:
        raise SettingError(
            f'The model "{model.name}" was never called, so what it takes is unknown. Call it once '
            "on a batch, or give examples=(x, y)."
        )
    arguments = [name for name in inspect.signature(model.call).parameters if name != "self"]
    first = next(iter(shapes.values()))
    if isinstance(first, dict):
        return model, first
    if isinstance(first, list):  # of shapes: call(self, inputs) takes a list
        named = {f"{arguments[0]}_{place}": shape for place, shape in enumerate(first)}
        return lambda given: model(list(given.values())), named
    return lambda given: model(*given.values()), dict(zip(arguments, shapes.values()))  # noqa: B905


def _kind(model, inputs: int) -> str:
    """The type of a subclassed model's input: Keras remembers its shape alone."""
    kinds = keras.layers.TextVectorization, keras.layers.StringLookup, keras.layers.Hashing
    if not any(isinstance(layer, kinds) for layer in model._flatten_layers()):
        return model.input_dtype
    if inputs == 1:
        return "string"
    raise SettingError(
        f'The model "{model.name}" takes {inputs} inputs, some of them texts; which ones is '
        "unknown. Give examples=(x, y)."
    )


def _of_function(serve: Callable, x) -> tuple[Callable, dict]:
    """A function of tensors, called with a dict; what it takes, by name."""
    plain = getattr(serve, "python_function", serve)
    about = inspect.signature(plain).parameters
    kinds = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD
    names = [name for name, p in about.items() if p.kind not in kinds and name != "self"]
    given = getattr(serve, "input_signature", None)
    examples = _spec_of(x, names[0]) if x is not None and names else {}
    spec = {}
    for place, name in enumerate(names):
        asked = given[place] if given else about[name].annotation
        if isinstance(asked, tf.TensorSpec):
            spec[name] = asked
        elif isinstance(asked, tf.DType):
            spec[name] = tf.TensorSpec([None], asked)
        elif name in examples:
            spec[name] = examples[name]
        elif name.endswith("_bytes"):
            spec[name] = tf.TensorSpec([None], tf.string)
        else:
            raise SettingError(
                f'serve: what is its argument "{name}"? Give examples=(x, y), an annotation such '
                f'as {name}: tf.TensorSpec([None, 28, 28], tf.uint8), or name it "{name}_bytes" '
                "for files' bytes."
            )
    if not spec:
        raise SettingError("serve takes no named argument; expected one an input of the model.")
    return lambda tensors: serve(*[tensors[name] for name in names]), spec


def _nothing():
    """What a module that can't be called serves."""


def _spec_of(x, name: str) -> dict[str, tf.TensorSpec]:
    """What examples are, by name; one that has none is called `name`."""
    if not isinstance(x, dict):
        x = {name: x}
    found = {}
    for key, values in x.items():
        first = np.asarray(values).dtype if hasattr(values, "__array__") else None
        array = np.asarray(values, object if first is None and _texts(values) else None)
        kind = "string" if array.dtype.kind in "OSU" else array.dtype.name
        kind = keras.config.floatx() if kind == "float64" else kind
        found[str(key)] = tf.TensorSpec([None, *array.shape[1:]], kind)
    return found


def _by_argument(model, x) -> bool:
    """Whether inputs are arguments of their own: `call(self, amounts, kind)`."""
    return isinstance(x, dict) and set(x) <= set(inspect.signature(model.call).parameters)


def _call_once(model, x) -> None:
    """Build a model on the first row."""
    model(**_first(x)) if _by_argument(model, x) else model(_first(x))


def _served(dtype: tf.DType) -> tf.DType:
    return tf.as_dtype(SERVED_AS.get(dtype.name, dtype))


def _first(x):
    if isinstance(x, dict):
        return {k: _first(v) for k, v in x.items()}
    several = isinstance(x, list | tuple) and all(isinstance(v, np.ndarray) for v in x)
    return [tf.constant(v[:1]) for v in x] if several else tf.constant(x[:1])


def _texts(values) -> bool:
    return bool(len(values)) and not re.match("int|float|bool|complex", type(values[0]).__name__)


def _tensor(spec) -> Tensor:
    shape = None if spec.shape.rank is None else tuple(spec.shape.as_list())
    return Tensor(spec.dtype.name, shape)
