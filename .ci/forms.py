"""Whether one line of a parameters cell is what Colab draws as a form (helpers/cells/forms.py).

What is no field, because a form of more than eight is read by nobody, stands below them as code:

NAME = 1  # what it is, in words
"""

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).absolute().parents[1]))

from helpers.cells import forms

LINE = re.compile(
    r"(?P<name>[A-Z][A-Z0-9_]*) = (?P<value>[^=#]+)"
    r"  # @param (?P<form>(\[[^\]=]*\])? ?(\{[^}=]*\})?)"
)
OPTIONS = {"string": {"placeholder"}, "integer": {"min", "max"}, "number": {"min", "max"},
           "slider": {"min", "max", "step"}}  # fmt: skip


def breach(line: str) -> str:
    """What is wrong with one line of a form, or ""."""
    match = LINE.fullmatch(line)
    if not match or not match["form"].strip():
        return "write `NAME = literal  # @param {…}` in one line"
    try:
        value, form = ast.literal_eval(match["value"]), forms.parse(match["form"])
    except (ValueError, SyntaxError):
        return "the value, the choices and the limits must be literals"
    if form.rest:
        return "Colab can't read the options; write {name:value, …}"
    dropdown, kind = form.choices is not None, form.kind
    if not dropdown and kind not in forms.TYPES:
        return f'type:"{kind}" is none of {", ".join(forms.TYPES)}'
    known = {"allow-input"} if dropdown else OPTIONS.get(kind, set())
    if unknown := sorted(set(form.options) - known - {"type"}):
        return f"{'a dropdown' if dropdown else kind} has no option {unknown[0]}"
    if dropdown and kind not in ("string", "raw"):
        return f'a dropdown is of type "string" or "raw", not "{kind}"'
    if kind == "slider" and not {"min", "max"} <= set(form.options):
        return "a slider needs min and max"
    expected = forms.misfit(form, value)
    if not expected:
        return ""
    if dropdown:
        return f"{value!r} is not among the choices"
    article, _, rest = expected.partition(" ")
    if article in ("a", "an"):
        return f"{value!r} is no {rest}"
    low, high = form.limits
    return f"{value!r} is outside {low:g} to {high:g}"


def breach_below(line: str) -> str:
    """What is wrong with a parameter that is no field, or ""."""
    match = re.fullmatch(r"[A-Z][A-Z0-9_]* = (?P<value>[^=#]+)  # (?!@)\w.*", line)
    if not match:
        return "write `NAME = literal  # what it is` in one line"
    try:
        ast.literal_eval(match["value"])
    except (ValueError, SyntaxError):
        return "the value must be a literal"
    return ""
