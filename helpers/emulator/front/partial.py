"""Partial answers: what `fields=items(name,size),nextPageToken` leaves of an answer
[D: storage/docs/json_api#partial-response].
"""

import functools
import re
from typing import Any

from helpers.emulator.front.calls import ApiError


def select(answer: Any, mask: str) -> Any:
    """The parts of an answer that a mask names.

    Raises:
        ApiError: the mask can't be read.
    """
    return _selected(answer, _tree(mask))


def _selected(value: Any, tree: dict) -> Any:
    if isinstance(value, list):
        return [_selected(item, tree) for item in value]
    if not tree or not isinstance(value, dict):
        return value
    if "*" in tree:
        return {k: _selected(v, tree["*"] | tree.get(k, {})) for k, v in value.items()}
    return {k: _selected(value[k], inner) for k, inner in tree.items() if k in value}


@functools.lru_cache(100)
def _tree(mask: str) -> dict:
    """A mask as nested names; what has no names below it is given whole."""
    words = re.findall(r"[\w*.-]+|[^\s]", mask)
    tree = _read(words, mask)
    if words:
        raise _wrong(mask)
    return tree


def _read(words: list[str], mask: str) -> dict:
    made: dict = {}
    while True:
        node = made
        while True:
            if not words or not re.fullmatch(r"[\w*.-]+", words[0]):
                raise _wrong(mask)
            node = node.setdefault(words.pop(0), {})
            if words[:1] != ["/"]:
                break
            words.pop(0)
        if words[:1] == ["("]:
            words.pop(0)
            node |= _read(words, mask)
            if words[:1] != [")"]:
                raise _wrong(mask)
            words.pop(0)
        if words[:1] != [","]:
            return made
        words.pop(0)


def _wrong(mask: str) -> ApiError:
    return ApiError(400, f"Invalid field selection {mask!r}; expected names such as items(a,b/c).")
