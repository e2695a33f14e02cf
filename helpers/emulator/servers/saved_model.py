"""A SavedModel's signatures as plain calls, as fast as TensorFlow makes them; a part of
model_server.py, which stands beside it."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# What TensorFlow imports for others: Keras, and with it scikit-learn and matplotlib. A SavedModel
# runs without, and the server starts in half the time.
UNUSED = ("keras", "h5py", "matplotlib", "pandas", "scipy", "sklearn")


@dataclass(frozen=True)
class Signature:
    """A way to call the model: one array an input, in order, gives one array an output."""

    inputs: dict[str, Any]  # name → TensorSpec
    outputs: dict[str, Any]
    call: Callable[[list], list] = field(repr=False)
    of_matrix: Callable[[list], list] | None = field(repr=False)  # all inputs in one tensor

    @property
    def by_rows(self) -> bool:
        """Whether every input and output has a free first dimension, one place a row."""
        shapes = [spec.shape for spec in [*self.inputs.values(), *self.outputs.values()]]
        return all(shape.rank and shape[0] is None for shape in shapes)


def load(base: Path, *, direct: bool = False) -> tuple[str, dict[str, Signature]]:
    """The highest numbered version below `base` (`direct`: the model in `base`) and its calls."""
    versions = {int(p.name): p for p in base.iterdir() if p.name.isdecimal()}
    if direct and (base / "saved_model.pb").is_file():
        versions = {1: base}
    if not versions:
        raise FileNotFoundError(f"No versions of servable found under base path {base}")
    sys.modules |= dict.fromkeys(UNUSED)
    import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    version = max(versions)
    model = tf.saved_model.load(str(versions[version]))
    made = {name: _signature(model, function) for name, function in model.signatures.items()}
    return str(version), made


def _signature(model, function) -> Signature:
    import tensorflow as tf

    specs = dict(sorted(function.structured_input_signature[1].items()))
    outputs = dict(sorted(function.structured_outputs.items()))

    def plain(tensors: list) -> list:
        answers = function(**dict(zip(specs, tensors, strict=True)))
        return [answers[name].numpy() for name in outputs]

    plain.model = model  # the variables live as long as it does
    call = _frozen(function, specs, plain) or plain
    matrix = tf.TensorSpec([len(specs), None], tf.float32, "matrix")
    if len(specs) < 2 or any(s.shape.rank != 1 or s.dtype != tf.float32 for s in specs.values()):
        return Signature(specs, outputs, call, None)

    def columns(tensor):
        return function(**dict(zip(specs, tf.unstack(tensor, len(specs)), strict=True)))

    stacked = tf.function(columns, input_signature=[matrix]).get_concrete_function()
    fast = _frozen(stacked, {"matrix": matrix}, lambda tensors: plain(tf.unstack(tensors[0])))
    return Signature(specs, outputs, call, fast)


def _frozen(function, specs: dict, plain: Callable) -> Callable | None:
    """The call with its variables turned into constants, where that changes nothing."""
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    try:
        fast = convert_variables_to_constants_v2(function)
        flat = fast.inference_fn.call_flat  # fast(...) formats every argument for an unseen message
        # Look-up tables can't be constants: they stay inputs, fed with what the function captured.
        tables = {inner.name: outer for outer, inner in function.graph.captures}
        names = [tensor.name.split(":")[0] for tensor in fast.inputs]
        feeds = [tables.get(tensor.name) for tensor in fast.inputs]
        order = {name: place for place, name in enumerate(names) if name in specs}
        places = [order[name] for name in specs]

        def call(tensors: list) -> list:
            given = list(feeds)
            for place, tensor in zip(places, tensors, strict=True):
                given[place] = tensor
            return [answer.numpy() for answer in flat(*given)]

        probe = [
            tf.zeros([size or 2 for size in spec.shape], spec.dtype) for spec in specs.values()
        ]
        for expected, got in zip(plain(probe), call(probe), strict=True):
            text = expected.dtype.kind == "O"
            if not (np.array_equal if text else np.allclose)(expected, got):
                return None
        return call
    except Exception as error:  # slower, not wrong: the signature is served as it was saved
        print(f"Served without freezing: {error!r}"[:500], file=sys.stderr)
        return None
