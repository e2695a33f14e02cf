"""A script or a notebook, with what it needs of its folder, as the files of an image.

Nothing is rewritten but what only a notebook understands, and no credential travels along.
"""

import ast
from pathlib import Path

import nbformat

from helpers.cells import leaks
from helpers.cells.code import plain
from helpers.cells.neighbours import of_folder
from helpers.cloud.client import Session
from helpers.errors import NotFoundError, SettingError
from helpers.notebooks import find_notebook, save_notebook, scan_secrets


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
        files = {f"code/{n}": text for n, text in of_folder(path.resolve().parent).items()}
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
