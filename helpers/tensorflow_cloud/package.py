"""A script or a notebook, with what it needs of its folder, as the files of an image.

Nothing is rewritten but what only a notebook understands, and no credential travels along.
"""

import ast
import os
import re
from pathlib import Path

import nbformat

from helpers.cells import leaks
from helpers.cells.code import plain
from helpers.cloud.client import Session
from helpers.cloud.images import CREDENTIALS
from helpers.errors import NotFoundError, SettingError
from helpers.notebooks import find_notebook, save_notebook, scan_secrets

LIMIT_BYTES = 100 * 2**20  # data belongs into the bucket
IGNORE_FILES = (".gcloudignore", ".dockerignore", ".gitignore")  # the first that is there


def pack_code(session: Session, entry_point: str | None) -> tuple[str, dict[str, bytes]]:
    """The files of a job that runs a script.

    Args:
        entry_point: a .py or .ipynb file, packed with its folder; a notebook's name or gs://
            address; None takes the notebook being edited.
    Returns:
        The script's name, and `{"code/…": content}`.
    Raises:
        SettingError: it is no script, or it shows a secret.
    """
    if entry_point is None:
        entry_point = save_notebook(session)
    is_notebook = str(entry_point).endswith(".ipynb")
    if not is_notebook and not str(entry_point).endswith(".py"):
        raise SettingError(f'entry_point="{entry_point}"; expected a .py or .ipynb file.')
    path, files = Path(entry_point), {}
    if path.is_file():
        files = _files(path.resolve().parent)
    elif is_notebook:
        path = find_notebook(str(entry_point), session).path
    else:
        raise NotFoundError(f'No script "{entry_point}" in {Path.cwd()}.')
    script, text = path.with_suffix(".py").name, path.read_bytes()
    if is_notebook:
        scan_secrets(path)
        text = script_of(nbformat.read(path, as_version=4), path.name).encode()
        script = script if f"code/{script}" not in files else f"{path.stem}_notebook.py"
    if leaks.shown(text):
        raise SettingError(f"{path} shows a secret; remove it. Machines need none.")
    return script, files | {f"code/{script}": text}


def script_of(notebook: nbformat.NotebookNode, name: str) -> str:
    """A notebook as a script: magics and shell lines are kept out, and named in the log.

    Raises:
        SettingError: a cell is not Python.
    """
    parts = ["from IPython.display import display  # every notebook has it\n"]
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for number, source in enumerate(code, 1):
        text, left_out = plain(source)
        for line in left_out:
            print(f"Kept out: cell {number} of {name}: {line}")
        try:
            ast.parse(text)
        except SyntaxError as error:
            raise SettingError(
                f"Cell {number} of {name} is not Python: {error.msg} in {error.text!r}."
            ) from error
        parts.append(f"\n# cell {number}\n{text.rstrip()}\n")
    return "".join(parts)


def _files(folder: Path) -> dict[str, bytes]:
    """A script's folder without hidden files, environments, what is ignored, and credentials."""
    rules = _ignore_rules(folder)
    files, kept_out, size_bytes = {}, [], 0
    for place, folders, names in os.walk(folder):
        inner = [name for name in folders if not (name.startswith(".") or name == "__pycache__")]
        inner = [name for name in inner if not Path(place, name, "pyvenv.cfg").exists()]
        relative = Path(place).relative_to(folder)
        folders[:] = [n for n in inner if not _ignored(rules, f"{(relative / n).as_posix()}/x")]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            name = path.relative_to(folder).as_posix()
            inside = path.is_file() and path.resolve().is_relative_to(folder)
            if not inside or _ignored(rules, name):
                continue
            size_bytes += path.stat().st_size
            if size_bytes > LIMIT_BYTES:
                raise SettingError(
                    f"{folder} holds more than {LIMIT_BYTES / 1e6:.0f} MB; name what the job does "
                    f"not need in {IGNORE_FILES[0]}, and keep data in the bucket."
                )
            content = path.read_bytes()
            if CREDENTIALS.search(name) or leaks.shown(content):
                kept_out.append(name)
            else:
                files[f"code/{name}"] = content
    if kept_out:
        print(f"Kept out: {', '.join(kept_out)} (looks like a credential)")
    return files


def _ignore_rules(folder: Path) -> list[tuple[bool, re.Pattern]]:
    """(ignore?, pattern) a line of the ignore file, in the form .gitignore has."""
    found = [folder / name for name in IGNORE_FILES if (folder / name).is_file()]
    lines = found[0].read_text().splitlines() if found else []
    rules = []
    for line in (line.strip() for line in lines if line.strip() and not line.startswith("#")):
        body = line.removeprefix("!").removeprefix("/")
        anywhere = "" if "/" in line.removeprefix("!").rstrip("/") else "(.*/)?"
        pattern = re.sub(
            r"\*\*/|\*\*|\*|\?|[^*?]+",
            lambda m: (
                {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(m[0])
                or re.escape(m[0])
            ),
            body.rstrip("/"),
        )
        below = "/.*" if body.endswith("/") else "(/.*)?"
        rules.append((not line.startswith("!"), re.compile(anywhere + pattern + below)))
    return rules


def _ignored(rules: list[tuple[bool, re.Pattern]], name: str) -> bool:
    return next((ignore for ignore, rule in reversed(rules) if rule.fullmatch(name)), False)
