"""A notebook's parameters: the cell that declares them, and the values that fit.

The parameters cell is the one tagged `parameters`; Colab can tag none, so without one it is the
first code cell that is headed `# @title Parameters` or has `# @param` lines.
"""

import ast
import contextlib
import io
import json
import math
import os
import tokenize
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

from helpers.cells import forms, leaks
from helpers.cells.code import plain
from helpers.errors import NotebookError, SettingError, near

PLAIN = (type(None), bool, int, float, str, list, dict)
SAID = {
    int: "a whole number", float: "a number", bool: "True or False", str: "text", list: "a list",
    dict: "a dictionary", type(None): "None",
}  # fmt: skip
HOW = (
    'Write one: a code cell that begins with "# @title Parameters" and has a line such as '
    "EPOCHS = 50 for each."
)


@dataclass(frozen=True)
class Parameter:
    """A name of the parameters cell.

    `kinds`: the types it takes, () for any. `computed`: the expression that gives its value, where
    that is no literal; nothing can set it then.
    """

    name: str
    default: object = None
    kinds: tuple[type, ...] = ()
    form: forms.Form = field(default_factory=forms.Form)
    computed: str = ""


def read(path: str | Path) -> nbformat.NotebookNode:
    """A notebook's file."""
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise NotebookError(f"{path} is not a notebook ({error}).") from error


def parameters_cell(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """The cell that declares a notebook's parameters."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in cells if "parameters" in cell.metadata.get("tags", [])]
    forms_ = (cell for cell in cells if _is_form(cell.source))
    return tagged[0] if tagged else next(forms_, None)


def declared(path: str | Path) -> dict[str, Parameter]:
    """Every name of the parameters cell, in order.

    Raises:
        NotebookError: that cell is not Python.
    """
    cell = parameters_cell(read(path))
    if cell is None:
        return {}
    source, _ = plain(cell.source)
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise NotebookError(
            f"The parameters cell of {Path(path).name} is not Python: {error.msg} in "
            f"{(error.text or '').strip()!r}."
        ) from error
    comments, found = _comments(source), {}
    for node in body:
        for name, value, annotation in _assignments(node):
            found[name] = _parameter(name, value, annotation, comments.get(node.end_lineno, ""))
    return found


def read_parameters(path: str | Path) -> dict:
    """Names and default values of a notebook's parameters cell; {} when it has none.

    A name whose value is computed is not among them: it can't be set.
    """
    return {name: known.default for name, known in declared(path).items() if not known.computed}


def check_parameters(path: str | Path, parameters: dict) -> dict:
    """Parameters as the notebook declares them: its names, its types, its limits.

    Args:
        parameters: values; "10" for a number, 3 for 3.0 and "false" for a boolean are converted.
    Raises:
        SettingError: an unknown name (the nearest is given), or a value that does not fit.
    """
    known, checked, file = declared(path), {}, Path(path).name
    settable = [name for name, parameter in known.items() if not parameter.computed]
    for name, value in parameters.items():
        where = f'Parameter "{name}"'
        if name not in known and not leaks.is_secret(name, value):
            hint = near(name, settable) if known else f" It has no parameters cell. {HOW}"
            raise SettingError(f"{where} is unknown in {file}.{hint}")
        if name in known and known[name].computed:
            raise SettingError(
                f"{where} can't be set in {file}: its value is computed ({known[name].computed}). "
                "Give it a literal there, or set what it is computed from."
            )
        checked[name] = _convert(where, value, known[name]) if name in known else value
        if leaks.is_secret(name, checked[name]):
            raise SettingError(
                f"{where} looks like a secret, and the output keeps parameters. Sign in instead."
            )
        _check_form(where, checked[name], known[name].form)
    return checked


def stale(path: str | Path, given: dict) -> list[str]:
    """What the parameters cell computes from a default that `given` replaces only afterwards."""
    said = []
    for name, parameter in declared(path).items():
        used = {n.id for n in ast.walk(ast.parse(parameter.computed)) if isinstance(n, ast.Name)}
        if used & given.keys():
            said.append(f"{name} = {parameter.computed}")
    return said


def _is_form(source: str) -> bool:
    first = source.lstrip().partition("\n")[0]
    if forms.TITLE.match(first):
        return True
    return any(forms.COMMENT.match(text) for text in _comments(plain(source)[0]).values())


def _comments(source: str) -> dict[int, str]:
    """The comment of each line that has one (never a # inside a text)."""
    found = {}
    with contextlib.suppress(tokenize.TokenError, IndentationError, SyntaxError):
        for token in tokenize.generate_tokens(io.StringIO(source).readline):
            if token.type == tokenize.COMMENT:
                found[token.start[0]] = token.string
    return found


def _assignments(node: ast.stmt) -> list[tuple[str, ast.expr | None, ast.expr | None]]:
    """(name, value, annotation) of each name that a statement assigns or declares."""
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        return [(node.target.id, node.value, node.annotation)]
    found = []
    for target in node.targets if isinstance(node, ast.Assign) else []:
        if isinstance(target, ast.Name):
            found.append((target.id, node.value, None))
        elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = zip(target.elts, node.value.elts, strict=False)
            found += [(t.id, value, None) for t, value in pairs if isinstance(t, ast.Name)]
    return found


def _parameter(name: str, value: ast.expr | None, annotation, comment: str) -> Parameter:
    kinds, default = _kinds(annotation), None
    if value is not None:
        try:
            default = ast.literal_eval(value)
        except (ValueError, TypeError, SyntaxError):
            return Parameter(name, computed=ast.unparse(value))
        if type(default) not in (*PLAIN, tuple):
            return Parameter(name, computed=ast.unparse(value))
        if annotation is None:
            kinds = () if default is None else (type(default),)
    match = forms.COMMENT.match(comment)
    form = forms.Form()
    with contextlib.suppress(ValueError):  # what Colab can't read limits nothing
        form = forms.parse(match[1]) if match else form
    return Parameter(name, default, kinds, form)


def _kinds(annotation: ast.expr | None) -> tuple[type, ...]:
    """The types an annotation names; () where it names others, or none."""
    if annotation is None:
        return ()
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        with contextlib.suppress(SyntaxError):
            return _kinds(ast.parse(annotation.value, mode="eval").body)
    parts = [annotation]
    if isinstance(annotation, ast.BinOp) and isinstance(annotation.op, ast.BitOr):
        parts = [annotation.left, annotation.right]
    elif isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value).rpartition(".")[2]
        inner = annotation.slice
        if outer in ("Optional", "Union"):
            parts = inner.elts if isinstance(inner, ast.Tuple) else [inner]
            parts = [*parts, ast.Constant(None)] if outer == "Optional" else parts
        else:
            parts = [annotation.value]
    if len(parts) > 1:
        found = [_kinds(part) for part in parts]
        return tuple(kind for kinds in found for kind in kinds) if all(found) else ()
    named = {kind.__name__: kind for kind in PLAIN} | {"None": type(None), "tuple": list}
    named |= {"List": list, "Dict": dict, "Tuple": list}
    kind = named.get(ast.unparse(parts[0]).rpartition(".")[2])
    return (kind,) if kind else ()


def _convert(where: str, value, parameter: Parameter):
    """`value` as a type the parameter takes, when nothing is lost."""
    value = value.item() if hasattr(value, "item") else value  # NumPy scalars
    value = str(value) if isinstance(value, os.PathLike) else value
    value = list(value) if isinstance(value, tuple) else value
    kinds = tuple(list if kind is tuple else kind for kind in parameter.kinds)
    exact = [kind for kind in kinds if type(value) is kind]
    for kind in exact or kinds or (type(value),):
        with contextlib.suppress(ValueError, TypeError, OverflowError, SyntaxError):
            converted = _as(kind, value)
            json.dumps(converted, allow_nan=False)
            return converted
    said = " or ".join(SAID[kind] for kind in kinds) or "text, numbers, lists or dictionaries"
    like = "" if parameter.default is None else f" like {parameter.default!r}"
    raise SettingError(f"{where} is {value!r}; expected {said}{like}.")


def _as(kind: type, value):
    if type(value) is kind and kind is not float:
        return value
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and type(value) is int:
        return str(value)
    if kind in (list, dict) and isinstance(value, str):
        made = ast.literal_eval(value)
        if type(made) is kind:
            return made
    if kind in (int, float) and isinstance(value, int | float | str) and type(value) is not bool:
        if kind is float and math.isfinite(float(value)):
            return float(value)
        if kind is int and (isinstance(value, str) or value == int(value)):
            return int(value)
    raise ValueError(value)


def _check_form(where: str, value, form: forms.Form) -> None:
    """Hold a value to what the form offers: a list of choices, its type, min and max."""
    expected = forms.misfit(form, value)
    if expected and form.choices is not None:
        raise SettingError(f"{where} is {value!r}.{near(value, form.choices)}")
    if expected:
        raise SettingError(f"{where} is {value!r}; expected {expected}.")
