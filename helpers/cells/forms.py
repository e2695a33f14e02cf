"""Colab's forms: what stands after `# @param`, and whether a value fits it.

NAME = "a"  # @param {type:"string", placeholder:"a name"}
NAME = 1  # @param {type:"integer"}            number, boolean, date ("2026-08-01") and raw alike
NAME = 5  # @param {type:"slider", min:0, max:10, step:1}
NAME = "a"  # @param ["a", "b"] {allow-input: true}
NAME = 2  # @param [1, 2] {"type":"raw"}       names may be quoted, as JSON has them
"""

import ast
import datetime
import math
import re
from dataclasses import dataclass, field

COMMENT = re.compile(r"#\s*@param\b[ \t]*(.*)")
TITLE = re.compile(r"#\s*@title\s+parameters\b", re.IGNORECASE)
LIST = re.compile(r"""\[(?:"[^"]*"|'[^']*'|[^\]"'])*\]""")
OPTION = re.compile(
    r"""(?P<quote>["']?)(?P<name>[\w-]+)(?P=quote)\s*:\s*"""
    r"""(?P<value>"[^"]*"|'[^']*'|true|false|[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)"""
)
TYPES = {  # what a value of each type of form is
    "string": str, "integer": int, "number": (int, float), "slider": (int, float),
    "boolean": bool, "date": str, "raw": object,
}  # fmt: skip


@dataclass(frozen=True)
class Form:
    """One form field: the choices of a dropdown (None: it is none), and the options by name.

    `rest` is what Colab could not read either.
    """

    choices: tuple | None = None
    options: dict[str, str] = field(default_factory=dict)
    rest: str = ""

    @property
    def kind(self) -> str:
        """Its type; a dropdown is of type "string" unless it says "raw"."""
        return self.options.get("type", "" if self.choices is None else "string")

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value."""
        return float(self.options.get("min", "-inf")), float(self.options.get("max", "inf"))


def parse(text: str) -> Form:
    """Read what stands after `# @param`.

    Raises:
        ValueError: the choices are no literals, or a limit is no number.
    """
    listed = LIST.match(text)
    try:
        choices = tuple(ast.literal_eval(listed[0])) if listed else None
    except SyntaxError as error:
        raise ValueError(f"{listed[0]} is no list of literals") from error
    said = text[listed.end() :] if listed else text
    options = {found["name"]: found["value"].strip("\"'") for found in OPTION.finditer(said)}
    form = Form(choices, options, OPTION.sub("", said).strip("{, }"))
    _ = form.limits
    return form


def misfit(form: Form, value) -> str:
    """What the form would not let through, such as "1 or more"; "" when the value fits.

    None fits every form: a notebook that has it as its default means "nothing chosen".
    """
    if value is None:
        return ""
    if form.choices is not None:
        return "" if _offered(form, value) else "one of its choices"
    types = TYPES.get(form.kind, object)
    if not isinstance(value, types) or (isinstance(value, bool) and types not in (bool, object)):
        if form.kind == "integer" and isinstance(value, float) and value.is_integer():
            return misfit(form, int(value))
        return f"{'an' if form.kind == 'integer' else 'a'} {form.kind}"
    if form.kind == "date" and not _is_date(value):
        return "a date such as 2026-08-01"
    low, high = form.limits
    if isinstance(value, int | float) and not low <= value <= high:
        if math.inf in (-low, high):
            return f"{low:g} or more" if low > -math.inf else f"{high:g} or less"
        return f"{low:g} to {high:g}"
    return ""


def _offered(form: Form, value) -> bool:
    if form.options.get("allow-input") == "true" or value in form.choices:
        return True
    if form.kind == "string":  # Colab writes a choice with its quotes, or without
        return value in {repr(choice) for choice in form.choices}
    return str(value) in {str(choice) for choice in form.choices}


def _is_date(text: str) -> bool:
    try:
        return str(datetime.date.fromisoformat(text)) == text
    except ValueError:
        return False
