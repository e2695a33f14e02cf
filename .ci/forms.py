"""Colab's form syntax: what may stand after `# @param`, and whether the value fits it.

NAME = "a"  # @param {type:"string", placeholder:"a name"}
NAME = 1  # @param {type:"integer"}            number, boolean, date ("2026-08-01") and raw alike
NAME = 5  # @param {type:"slider", min:0, max:10, step:1}
NAME = "a"  # @param ["a", "b"] {allow-input: true}
NAME = 2  # @param [1, 2] {type:"raw"}
"""

import ast
import datetime
import re

LINE = re.compile(
    r"(?P<name>[A-Z][A-Z0-9_]*) = (?P<value>[^=#]+)"
    r"  # @param (?P<choices>\[[^\]=]*\])? ?(?P<options>\{[^}=]*\})?"
)
OPTION = re.compile(r'"?([\w-]+)"?\s*:\s*("[^"]*"|true|false|-?[\d.]+)')
TAKES = {  # type -> (values, options beside type)
    "string": (str, {"placeholder"}),
    "integer": (int, {"min", "max"}),
    "number": ((int, float), {"min", "max"}),
    "boolean": (bool, set()),
    "date": (str, set()),
    "slider": ((int, float), {"min", "max", "step"}),
    "raw": (object, set()),
}


def breach(line: str) -> str:
    """What is wrong with one line of a form, or ""."""
    match = LINE.fullmatch(line)
    if not match or not (match["choices"] or match["options"]):
        return "write `NAME = literal  # @param {…}` in one line"
    try:
        value = ast.literal_eval(match["value"])
        choices = ast.literal_eval(match["choices"] or "None")
    except (ValueError, SyntaxError):
        return "the value and the choices must be literals"
    options = dict(OPTION.findall(match["options"] or ""))
    if OPTION.sub("", match["options"] or "").strip("{, }"):
        return "Colab can't read the options; write {name:value, …}"
    kind = options.pop("type", "" if choices is None else '"string"').strip('"')
    if choices is not None:
        return _dropdown(value, choices, kind, options)
    if kind not in TAKES:
        return f'type:"{kind}" is none of {", ".join(TAKES)}'
    types, known = TAKES[kind]
    if set(options) - known:
        return f"{kind} has no option {sorted(set(options) - known)[0]}"
    if not isinstance(value, types) or (isinstance(value, bool) and kind not in ("boolean", "raw")):
        return f"{value!r} is no {kind}"
    if kind == "slider" and set(options) < {"min", "max"}:
        return "a slider needs min and max"
    if kind == "date" and not _is_date(value):
        return f"{value!r} is no date such as 2026-08-01"
    low, high = float(options.get("min", "-inf")), float(options.get("max", "inf"))
    if {"min", "max"} & set(options) and not low <= value <= high:
        return f"{value!r} is outside {low:g} to {high:g}"
    return ""


def _dropdown(value, choices: list, kind: str, options: dict) -> str:
    if set(options) - {"allow-input"}:
        return f"a dropdown has no option {sorted(set(options) - {'allow-input'})[0]}"
    if kind not in ("string", "raw"):
        return f'a dropdown is of type "string" or "raw", not "{kind}"'
    # Colab writes a raw choice into the code as it is, with or without its quotes.
    offered = {*choices, *(repr(c) for c in choices)} if kind == "string" else {*map(str, choices)}
    if options.get("allow-input") != "true" and (value if kind == "string" else str(value)) not in (
        offered
    ):
        return f"{value!r} is not among the choices"
    return ""


def _is_date(text: str) -> bool:
    try:
        return str(datetime.date.fromisoformat(text)) == text
    except ValueError:
        return False
