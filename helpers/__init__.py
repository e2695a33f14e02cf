"""From a Colab notebook to a TensorFlow model serving on Google Cloud or the local cloud.

The public names, in the order of the alphabet; each is imported when first used, so that
`import helpers` takes no time and never brings TensorFlow along.
"""

import importlib
import logging
import os

# TensorFlow reads it as it loads. Its notes on the processor and on files it wrote are no news to
# a reader, who takes each for a warning.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
logging.getLogger("tensorflow").addFilter(lambda record: record.levelno >= logging.WARNING)

_HOME = {
    "Session": "cloud.client",
    "batch_predict": "batch_prediction",
    "batches": "learning.batches",
    "checkpoints": "learning.resume",
    "cleanup": "billing",
    "connect": "connection",
    "console": "console",
    "costs": "billing",
    "decode": "learning.encoding",
    "deploy": "endpoints",
    "encode": "learning.encoding",
    "export": "learning.export",
    "fetch": "cloud.cache",
    "find_endpoint": "endpoints",
    "find_job": "training",
    "find_model": "registry",
    "in_trial": "inputs.table",
    "make_missing": "missing",
    "metrics": "inputs.metrics",
    "predict": "prediction",
    "predict_file": "prediction",
    "predict_json": "prediction",
    "progress": "learning.progress",
    "promote": "endpoints",
    "read_parameters": "notebooks",
    "register": "registry",
    "roll_back": "endpoints",
    "run_notebook": "notebooks",
    "save_notebook": "notebooks",
    "score": "inputs.metrics",
    "setup": "project_setup",
    "steps_per_execution": "learning.batches",
    "strategy": "learning.strategy",
    "tensorboard": "looks.tensorboard",
    "train": "training",
    "tune": "tuning",
}
_MODULES = {
    "baselines": "learning.baselines",
    "data": "inputs.table",
    "images": "inputs.picture_folders",
    "plots": "looks.plots",
    "series": "inputs.series",
    "storage": "cloud.storage",
    "tables": "looks.tables",
    "texts": "inputs.texts",
}
__all__ = sorted([*_HOME, "data", "errors", "plots", "storage"])


def __getattr__(name: str):
    if name in _HOME:
        value = getattr(importlib.import_module(f"helpers.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = importlib.import_module(f"helpers.{_MODULES[name]}")
    else:
        raise AttributeError(f"module 'helpers' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
