"""Google's list filters: `state="RUNNING" AND labels.phase=test`, `timestamp>="2026-…"`.

Grammar after AIP-160 and the logging query language, as far as both agree: comparisons joined by
AND, OR, NOT (or `-`) and parentheses; `:` asks whether a field is there or has a value in it (a
text: the words, with * for any; a list: the member; a map: the key).
"""

import datetime
import fnmatch
import operator
import re
from collections.abc import Callable
from typing import Any

_TOKEN = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|!=|>=|<=|[=<>:()]|-(?=[\w(])|[^\s=<>:!()"]+(?:(?<=\.)"[^"]*")?)'
)
_COMPARE = {
    "=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge,
    "<": operator.lt, "<=": operator.le,
}  # fmt: skip


def compile_filter(text: str) -> Callable[[dict], bool]:
    """A test for resources.

    Raises:
        ValueError: the text is not a filter.
    """
    tokens, position = [], 0
    text = text.strip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if not match:
            raise ValueError(f"unexpected {text[position:][:20]!r}")
        tokens.append(match[1])
        position = match.end()
    if len(tokens) > 500:
        raise ValueError("too long")
    test = _any(tokens)
    if tokens:
        raise ValueError(f"unexpected {tokens[0]!r}")
    return test


def filter_fields(text: str) -> set[str]:
    """The first names of the fields a filter asks about."""
    text = re.sub(r'(?<![.])"(?:[^"\\]|\\.)*"', '""', text)
    return set(re.findall(r"(\w+)(?:\.[^\s=<>:!()]+)?\s*(?:!=|[=<>:])", text))


def order_fields(text: str) -> set[str]:
    """The names of the fields of an orderBy."""
    return {part.split()[0] for part in text.split(",") if part.strip()}


def sort_key(name: str) -> Callable[[dict], tuple]:
    """Orders resources by a field; those without it come first."""

    def key(item: dict) -> tuple:
        value = field_of(item, name)
        number = isinstance(value, int | float)
        return (value is not None, not number, value if number else str(value))

    return key


def field_of(item: Any, name: str) -> Any:
    """A nested field by its dotted name, in camelCase or snake_case."""
    for part in name.split("."):
        if not isinstance(item, dict):
            return None
        head, *rest = part.strip('"').split("_")
        camel = head + "".join(word[:1].upper() + word[1:] for word in rest)
        item = item.get(part.strip('"'), item.get(camel))
    return item


def _any(tokens: list[str]) -> Callable[[dict], bool]:
    tests = [_all(tokens)]
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        tests.append(_all(tokens))
    return lambda item: any(test(item) for test in tests)


def _all(tokens: list[str]) -> Callable[[dict], bool]:
    tests = [_one(tokens)]
    while tokens and tokens[0] not in ("OR", ")"):
        if tokens[0] == "AND":
            tokens.pop(0)
        tests.append(_one(tokens))
    return lambda item: all(test(item) for test in tests)


def _one(tokens: list[str]) -> Callable[[dict], bool]:
    if not tokens:
        raise ValueError("it ends too early")
    name = tokens.pop(0)
    if name in ("NOT", "-"):
        inner = _one(tokens)
        return lambda item: not inner(item)
    if name == "(":
        inner = _any(tokens)
        if not tokens or tokens.pop(0) != ")":
            raise ValueError("a parenthesis is open")
        return inner
    if len(tokens) < 2 or tokens[0] not in (*_COMPARE, ":"):
        raise ValueError(f"expected FIELD=VALUE at {name!r}")
    sign, raw = tokens.pop(0), tokens.pop(0)
    if raw in (*_COMPARE, ":", "(", ")"):
        raise ValueError(f"expected a value after {name}{sign}")
    value = re.sub(r"\\(.)", r"\1", raw[1:-1]) if raw.startswith('"') else raw
    moment = _moment(value)

    def test(item: dict) -> bool:
        actual = field_of(item, name)
        if sign == ":":
            return actual is not None and (value == "*" or _has(actual, value))
        if moment and isinstance(actual, str) and (then := _moment(actual)):
            return _COMPARE[sign](then, moment)
        if actual is None:
            return sign == "!=" and value != ""
        if isinstance(actual, int | float) and not isinstance(actual, bool):
            try:
                return _COMPARE[sign](actual, float(value))
            except ValueError:
                return sign == "!="
        if sign in "=!=" and value.endswith("*") and not raw.startswith('"'):
            return (sign == "=") == _text(actual).startswith(value[:-1])
        return _COMPARE[sign](_text(actual), value)

    return test


def _has(actual: Any, value: str) -> bool:
    if isinstance(actual, dict | list):
        return value in actual
    if "*" in value:
        return fnmatch.fnmatchcase(_text(actual), re.sub(r"[?[]", r"[\g<0>]", value))
    return value in _text(actual)


def _moment(text: str) -> datetime.datetime | None:
    """RFC 3339, or a day; None for other texts."""
    if not re.match(r"\d{4}-\d\d-\d\d", text):
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
