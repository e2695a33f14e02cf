"""From a Colab notebook to a TensorFlow model serving on Google Cloud or the local cloud.

The public names, in the order of the alphabet; each is imported when first used, so that
`import helpers` takes no time and never brings TensorFlow along.
"""

import importlib
import sys
import types

_HOME = {
    "Session": "session",
    "batch_predict": "batch",
    "batches": "model",
    "checkpoints": "resume",
    "cleanup": "costs",
    "connect": "session",
    "costs": "costs",
    "decode": "model",
    "deploy": "deploy",
    "encode": "model",
    "export": "model",
    "find_endpoint": "deploy",
    "find_job": "train",
    "find_model": "registry",
    "make_missing": "deploy",
    "predict": "predict",
    "predict_json": "predict",
    "promote": "deploy",
    "register": "registry",
    "roll_back": "deploy",
    "run_notebook": "notebook",
    "save_notebook": "notebook",
    "setup": "setup",
    "steps_per_execution": "model",
    "strategy": "strategy",
    "tensorboard": "tensorboard",
    "train": "train",
    "tune": "tune",
}
_MODULES = {"data", "errors", "plots", "storage", "tensorflow_cloud"}
__all__ = sorted([*_HOME, "data", "errors", "plots", "storage"])


def __getattr__(name: str):
    if name in _MODULES:
        return importlib.import_module(f"helpers.{name}")
    if name in _HOME:
        value = getattr(importlib.import_module(f"helpers.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'helpers' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__


class _Package(types.ModuleType):
    """Keeps `helpers.train` the verb when the module helpers/train.py has been imported."""

    def __setattr__(self, name: str, value) -> None:
        if not (name in _HOME and isinstance(value, types.ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
