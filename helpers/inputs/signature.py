"""What a SavedModel takes and answers, read from its saved_model.pb without TensorFlow."""

import functools
from dataclasses import dataclass

from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError

from helpers.errors import DataError

DEFAULT = "serving_default"
# TensorFlow's numbers of types. Source: tensorflow/core/framework/types.proto
DTYPES = {
    1: "float32", 2: "float64", 3: "int32", 4: "uint8", 5: "int16", 6: "int8", 7: "string",
    8: "complex64", 9: "int64", 10: "bool", 14: "bfloat16", 17: "uint16", 18: "complex128",
    19: "float16", 22: "uint32", 23: "uint64",
}  # fmt: skip
# The fields read here, of many: a type or message, and its number; `*` may repeat. A map is a list
# of entries. Source: tensorflow/core/protobuf/{saved_model,meta_graph}.proto and
# tensorflow/core/framework/{tensor,tensor_shape}.proto
MESSAGES = {
    "SavedModel": {"meta_graphs": ("*MetaGraph", 2)},
    "MetaGraph": {"about": ("About", 1), "signatures": ("*NamedSignature", 5)},
    "About": {"tags": ("*string", 4), "tensorflow_version": ("string", 5)},
    "NamedSignature": {"key": ("string", 1), "value": ("SignatureDef", 2)},
    "SignatureDef": {"inputs": ("*NamedTensor", 1), "outputs": ("*NamedTensor", 2)},
    "NamedTensor": {"key": ("string", 1), "value": ("TensorInfo", 2)},
    "TensorInfo": {"dtype": ("int32", 2), "shape": ("Shape", 3)},
    "Shape": {"dim": ("*Dimension", 2), "unknown_rank": ("bool", 3)},
    "Dimension": {"size": ("int64", 1)},
    "Tensor": {"dtype": ("int32", 1), "shape": ("Shape", 2), "content": ("bytes", 4)},
}


@dataclass(frozen=True)
class Tensor:
    """A type by TensorFlow's name, and a shape: None is a free size; no shape at all, a free rank.

    The first size is the number of rows.
    """

    dtype: str
    shape: tuple[int | None, ...] | None

    def __str__(self) -> str:
        if self.shape is None:
            return f"{self.dtype}, any shape"
        sizes = ["any" if size is None else str(size) for size in self.shape]
        if sizes[:1] == ["any"]:
            sizes[0] = "n"
        return f"{self.dtype}, {' × '.join(sizes)}" if sizes else f"one {self.dtype}"


@dataclass(frozen=True)
class Signature:
    """One way to call a model: its inputs and outputs by name."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]

    def __str__(self) -> str:
        return f"{_named(self.inputs)} → {_named(self.outputs)}"


@dataclass(frozen=True)
class SavedModel:
    """Signatures by name, and the version of TensorFlow that wrote them ("" where unknown)."""

    tensorflow: str
    signatures: dict[str, Signature]


def read(content: bytes, where: str = "saved_model.pb") -> SavedModel:
    """Read the bytes of a `saved_model.pb`.

    Args:
        where: what an error calls it.
    Raises:
        DataError: these are no SavedModel's.
    """
    try:
        graphs = message("SavedModel", content).meta_graphs
    except DecodeError as error:
        raise DataError(
            f"{where} is not a SavedModel ({error}). Export the model again."
        ) from error
    graph = next((g for g in graphs if "serve" in g.about.tags), None)
    if graph is None:
        raise DataError(f'{where} has no graph tagged "serve". Export the model again.')
    found = {
        entry.key: Signature(_tensors(entry.value.inputs), _tensors(entry.value.outputs))
        for entry in sorted(graph.signatures, key=lambda entry: entry.key)
        if not entry.key.startswith("__")  # an operation of TensorFlow's own
    }
    return SavedModel(graph.about.tensorflow_version, found)


def message(kind: str, content: bytes):
    """Bytes as one of `MESSAGES`."""
    return _kinds()[kind].FromString(content)


def shape_of(shape) -> tuple[int | None, ...] | None:
    """A `Shape` as numbers."""
    if shape.unknown_rank:
        return None
    return tuple(None if dim.size < 0 else dim.size for dim in shape.dim)


def _tensors(entries) -> dict[str, Tensor]:
    return {
        entry.key: Tensor(
            DTYPES.get(entry.value.dtype, f"type {entry.value.dtype}"), shape_of(entry.value.shape)
        )
        for entry in sorted(entries, key=lambda entry: entry.key)
    }


def _named(tensors: dict[str, Tensor]) -> str:
    shown = [f"{name} ({about})" for name, about in list(tensors.items())[:6]]
    return ", ".join(shown) + (f" and {len(tensors) - 6} more" if len(tensors) > 6 else "")


@functools.cache
def _kinds() -> dict:
    """The messages as classes, in a pool of their own: TensorFlow may be loaded beside them."""

    def field(name: str, kind: str, number: int) -> dict:
        bare = kind.lstrip("*")
        made = {"name": name, "number": number}
        made["label"] = "LABEL_REPEATED" if kind[0] == "*" else "LABEL_OPTIONAL"
        known = {"typeName": f".saved.{bare}", "type": "TYPE_MESSAGE"}
        return made | (known if bare in MESSAGES else {"type": f"TYPE_{bare.upper()}"})

    kinds = [
        {"name": name, "field": [field(n, *about) for n, about in fields.items()]}
        for name, fields in MESSAGES.items()
    ]
    file = {"name": "saved.proto", "package": "saved", "syntax": "proto3", "messageType": kinds}
    pool = descriptor_pool.DescriptorPool()
    made = json_format.ParseDict(file, descriptor_pb2.FileDescriptorProto())
    pool.AddSerializedFile(made.SerializeToString())
    found = pool.FindMessageTypeByName
    return {name: message_factory.GetMessageClass(found(f"saved.{name}")) for name in MESSAGES}
