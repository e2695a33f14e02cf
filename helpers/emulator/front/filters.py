"""Google's list filters: `state="RUNNING" AND labels.phase=test`, `timestamp>="2026-…"`.

Grammar after AIP-160 and the logging query language, as far as both agree: comparisons joined by
OR, then AND, NOT (or `-`) and parentheses; `:` asks whether a field is there or has a value in it
(a text: the words, with * for any; a list: the member; a map: the key).
"""

import datetime
import fnmatch
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

_TOKEN = re.compile(
    r'\s*("(?:[^"\\]|\\.)*"|!=|>=|<=|=~|!~|[=<>:()]|-(?=[\w(])|[^\s=<>:!()"]+(?:(?<=\.)"[^"]*")?)'
)
_COMPARE = {
    "=": operator.eq, "!=": operator.ne, ">": operator.gt, ">=": operator.ge,
    "<": operator.lt, "<=": operator.le,
}  # fmt: skip
REGULAR = ("=~", "!~")
SIGNS = (*_COMPARE, ":", *REGULAR)
Test = Callable[[dict], bool]
Ranks = Mapping[str, Sequence[str]] | None


def compile_filter(text: str, *, ranks: Ranks = None) -> Test:
    """A test for resources.

    Args:
        ranks: it is the logging query language's: texts compare in any case, but for regular
            expressions (=~, !~); a value alone is looked for in every field; the values of these
            fields have the order given.
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
    test = _all(tokens, ranks)
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


def _all(tokens: list[str], ranks: Ranks) -> Test:
    """AND, or nothing, between parts: OR binds closer, as both languages have it."""
    tests = [_any(tokens, ranks)]
    while tokens and tokens[0] != ")":
        if tokens[0] == "AND":
            tokens.pop(0)
        tests.append(_any(tokens, ranks))
    return lambda item: all(test(item) for test in tests)


def _any(tokens: list[str], ranks: Ranks) -> Test:
    tests = [_one(tokens, ranks)]
    while tokens and tokens[0] == "OR":
        tokens.pop(0)
        tests.append(_one(tokens, ranks))
    return lambda item: any(test(item) for test in tests)


def _one(tokens: list[str], ranks: Ranks) -> Test:
    if not tokens:
        raise ValueError("it ends too early")
    name = tokens.pop(0)
    if name in ("NOT", "-"):
        inner = _one(tokens, ranks)
        return lambda item: not inner(item)
    if name == "(":
        return _closed(tokens, _all(tokens, ranks))
    if not tokens or tokens[0] not in SIGNS:
        if ranks is not None and name not in ("AND", "OR", ")", *SIGNS):
            text = _plain(name).lower()
            return lambda item: text in _words(item)
        raise ValueError(f"expected FIELD=VALUE at {name!r}")
    sign = tokens.pop(0)
    if sign in REGULAR and ranks is None:
        raise ValueError(f"{sign} is for logs")
    if tokens[:1] == ["("]:
        tokens.pop(0)
        return _closed(tokens, _values(tokens, name, sign, ranks))
    return _value(tokens, name, sign, ranks)


def _closed(tokens: list[str], inner: Test) -> Test:
    if not tokens or tokens.pop(0) != ")":
        raise ValueError("a parenthesis is open")
    return inner


def _values(tokens: list[str], name: str, sign: str, ranks: Ranks) -> Test:
    """`severity=("ERROR" OR "ALERT")`: the values of one comparison."""
    tests, join = [_value(tokens, name, sign, ranks)], None
    while tokens and tokens[0] in ("AND", "OR"):
        if join not in (None, tokens[0]):
            raise ValueError("AND and OR among values; put each comparison apart")
        join = tokens.pop(0)
        tests.append(_value(tokens, name, sign, ranks))
    together = all if join == "AND" else any
    return lambda item: together(test(item) for test in tests)


def _value(tokens: list[str], name: str, sign: str, ranks: Ranks) -> Test:
    if not tokens or tokens[0] in (*SIGNS, "(", ")"):
        raise ValueError(f"expected a value after {name}{sign}")
    raw = tokens.pop(0)
    if sign in REGULAR:
        try:
            searched = re.compile(_plain(raw))
        except re.error as error:
            raise ValueError(f"{raw} is no regular expression: {error}") from error
        return lambda item: bool(searched.search(_text(field_of(item, name)))) == (sign == "=~")
    value = _plain(raw)
    if ranks and name in ranks:
        order = [*ranks[name]]
        if value.upper() not in order:
            raise ValueError(f"{name}={raw}; expected one of {', '.join(order)}")
        place, compare = order.index(value.upper()), _COMPARE["=" if sign == ":" else sign]
        return lambda item: compare(order.index(field_of(item, name)), place)
    moment, fold = _moment(value), ranks is not None
    value = value.lower() if fold else value

    def test(item: dict) -> bool:
        actual = field_of(item, name)
        if sign == ":":
            return actual is not None and (value == "*" or _has(actual, value, fold))
        if moment and isinstance(actual, str) and (then := _moment(actual)):
            return _COMPARE[sign](then, moment)
        if actual is None:
            return sign == "!=" and value != ""
        if isinstance(actual, int | float) and not isinstance(actual, bool):
            try:
                return _COMPARE[sign](actual, float(value))
            except ValueError:
                return sign == "!="
        text = _text(actual).lower() if fold else _text(actual)
        if sign in "=!=" and value.endswith("*") and not raw.startswith('"'):
            return (sign == "=") == text.startswith(value[:-1])
        return _COMPARE[sign](text, value)

    return test


def _plain(raw: str) -> str:
    """A value without its quotation marks."""
    return re.sub(r"\\(.)", r"\1", raw[1:-1]) if raw.startswith('"') else raw


def _words(item: Any) -> str:
    """All texts in a resource."""
    if isinstance(item, dict | list):
        return "\n".join(map(_words, item.values() if isinstance(item, dict) else item))
    return _text(item).lower()


def _has(actual: Any, value: str, fold: bool) -> bool:
    if isinstance(actual, dict | list):
        return value in (map(str.lower, map(_text, actual)) if fold else actual)
    text = _text(actual).lower() if fold else _text(actual)
    if "*" in value:
        return fnmatch.fnmatchcase(text, re.sub(r"[?[]", r"[\g<0>]", value))
    return value in text


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
