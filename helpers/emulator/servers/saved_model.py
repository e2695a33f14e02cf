"""A SavedModel's signatures as plain calls, as fast as TensorFlow makes them; a part of
model_server.py, which stands beside it.

The model runs in a session, as in TensorFlow Serving: the thread that asks also computes, and the
few modules of TensorFlow that this needs are there in half the time of the whole package.
"""
# ruff: noqa: E402 (what TensorFlow imports is decided before it is imported)

import importlib.util
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

# What TensorFlow imports for others: Keras, and with it scikit-learn and matplotlib.
UNUSED = ("keras", "h5py", "matplotlib", "pandas", "scipy", "sklearn")
HIDDEN = "__saved_model_"  # signatures of the format's own: how to initialize, for example


def _bare(name: str) -> None:
    """Make a package importable without running its `__init__`, which imports all of it."""
    spec = importlib.util.find_spec(name)
    module = sys.modules[name] = types.ModuleType(name)
    module.__spec__, module.__path__ = spec, list(spec.submodule_search_locations)


if "tensorflow" not in sys.modules:
    sys.modules |= dict.fromkeys(UNUSED)
    _bare("tensorflow")

from tensorflow.core.protobuf import config_pb2
from tensorflow.python.client import session as sessions
from tensorflow.python.framework import (
    constant_op,
    dtypes,
    errors,
    ops,
    tensor_shape,
)
from tensorflow.python.saved_model import loader_impl
from tensorflow.python.util import deprecation

tensor_shape.enable_v2_tensorshape()
ops.enable_eager_execution()


@dataclass(frozen=True)
class Spec:
    """An input or output."""

    dtype: Any
    shape: Any

    def array(self, values) -> np.ndarray:
        """JSON values as such an array.

        Raises:
            TypeError, ValueError: they are not of its type, or no full array.
        """
        try:
            return constant_op.constant(values, self.dtype).numpy()
        except errors.OpError as error:
            raise ValueError(str(error)) from error


@dataclass(frozen=True)
class Signature:
    """A way to call the model: one array an input, in order, gives one array an output."""

    inputs: dict[str, Spec]
    outputs: dict[str, Spec]
    call: Callable[..., list[np.ndarray]] = field(repr=False)

    @cached_property
    def columns(self) -> bool:
        """Whether it takes several inputs, each one number a row."""
        kinds = {(spec.dtype, spec.shape.rank) for spec in self.inputs.values()}
        return len(self.inputs) > 1 and kinds == {(dtypes.float32, 1)}

    @cached_property
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
    version = max(versions)
    # -1: operations run on the thread that asks; no other is woken, none waited for
    threads = {"inter_op_parallelism_threads": -1, "intra_op_parallelism_threads": 1}
    session = sessions.Session(
        graph=ops.Graph(), config=config_pb2.ConfigProto(device_count={"GPU": 0}, **threads)
    )
    with session.graph.as_default(), deprecation.silence():  # sessions are not new, but meant
        loader = loader_impl.SavedModelLoader(str(versions[version]))
        found = loader.load(session, ["serve"]).signature_def
        made = {n: _signature(session, s) for n, s in found.items() if not n.startswith(HIDDEN)}
    return str(version), made


def _signature(session, about) -> Signature:
    inputs, outputs = (
        {name: Spec(dtypes.as_dtype(t.dtype), tensor_shape.TensorShape(t.tensor_shape))
         for name, t in sorted(tensors.items())}
        for tensors in (about.inputs, about.outputs)
    )  # fmt: skip
    feeds, fetches = ([t[n].name for n in sorted(t)] for t in (about.inputs, about.outputs))
    # What session.run does in Python at every call takes longer than a small model.
    call = session._make_callable_from_options(
        config_pb2.CallableOptions(feed=feeds, fetch=fetches)
    )
    return Signature(inputs, outputs, call)
