"""What imports TensorFlow, imported at its first use: few test workers need it."""

import importlib


class _Lazy:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str):
        return getattr(importlib.import_module(self._name), attribute)


keras, tf, export = map(_Lazy, ("keras", "tensorflow", "helpers.learning.export"))
