"""Find, check, run and keep notebooks: the unit of work everywhere in this project."""

from pathlib import Path

import nbformat

from helpers.cells import kernel, leaks
from helpers.cells import parameters as cells
from helpers.cells.edited import being_edited
from helpers.cells.notebook_file import NotebookFile, find_notebook, sha256
from helpers.cells.parameters import check_parameters
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.errors import NotebookError

__all__ = [
    "NotebookFile", "check_parameters", "find_notebook", "read_parameters", "run_notebook",
    "save_notebook", "scan_secrets",
]  # fmt: skip


def read_parameters(path: str | Path, session: Session | None = None) -> dict:
    """Names and default values of a notebook's parameters cell; {} when it has none.

    A name whose value is computed is not among them: it can't be set.

    Args:
        path: a path, a gs:// address (needs `session`) or a template's name.
    """
    return cells.read_parameters(find_notebook(path, session).path)


def run_notebook(
    path: str | Path,
    output: str | Path,
    parameters: dict | None = None,
    *,
    report: bool = True,
    cwd: str | Path | None = None,
    log: bool = False,
) -> Path:
    """Run a notebook from top to bottom in a fresh kernel of this interpreter, strictly.

    Args:
        path: a path or a template's name.
        output: where the executed notebook goes; it is kept on failure too.
        parameters: values for its parameters cell (see `check_parameters`).
        report: also write `output` as a page, with the suffix .html.
        cwd: working directory of the kernel; default: this process's.
        log: stream what the cells print.
    Raises:
        SettingError: a parameter does not fit; nothing was run.
        NotebookError: a cell raised or did not run, or a secret was in an output.
    """
    found, output = find_notebook(path), Path(output).resolve()
    parameters = check_parameters(found.path, parameters or {})
    return kernel.execute(found.path, output, parameters, report=report, cwd=cwd, log=log)


def scan_secrets(path: str | Path) -> None:
    """Refuse a notebook that shows a secret; the token of this project's local cloud is one.

    Raises:
        NotebookError: says which cell and what kind, never the secret itself.
    """
    said = leaks.take_out(cells.read(path), Path(path).name)
    if said:
        raise NotebookError(f"{said} Remove it there and run the notebook again.")


def save_notebook(session: Session, name: str = "") -> str:
    """Store the notebook being edited in the bucket, without outputs.

    Args:
        name: its file; needed only where the editor does not tell.
    Returns:
        `gs://BUCKET/notebooks/NAME-HASH.ipynb`, which `train` takes.
    Raises:
        SettingError: the editor does not tell which file this is.
        NotebookError: a secret is in it; nothing was stored.
    """
    name, notebook = being_edited(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    said = leaks.take_out(notebook, name)
    if said:
        raise NotebookError(f"{said} Remove it; nothing was stored.")
    content = nbformat.writes(notebook).encode()
    uri = f"gs://{session.bucket}/notebooks/{Path(name).stem}-{sha256(content)}.ipynb"
    print(f"Storing {name} (without outputs) in bucket {session.bucket}, {session.location}")
    return storage.write_bytes(session, content, uri)
