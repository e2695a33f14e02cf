"""Find, check, run and keep notebooks: the unit of work everywhere in this project."""

import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers.cells import kernel, leaks
from helpers.cells import parameters as cells
from helpers.cells.parameters import check_parameters, read_parameters
from helpers.cloud import folders as places
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.errors import NotebookError, NotFoundError, SettingError, near

__all__ = [
    "NotebookFile", "check_parameters", "find_notebook", "read_parameters", "run_notebook",
    "save_notebook", "scan_secrets",
]  # fmt: skip


@dataclass(frozen=True)
class NotebookFile:
    """Which file a name stands for; `sha256` is its first 12 hex digits."""

    path: Path
    name: str
    sha256: str
    origin: str


def find_notebook(name: str | Path, session: Session | None = None) -> NotebookFile:
    """The file a name stands for: beside the working directory, in the project, or installed.

    Args:
        name: a path, a gs:// address (needs `session`) or a template's name.
    Raises:
        NotFoundError: no such notebook; the nearest name is given.
    """
    if str(name).startswith("gs://"):
        if session is None:
            raise SettingError(f"{name} is in a bucket; pass the session that can read it.")
        folder = Path(tempfile.mkdtemp(prefix="notebook-"))
        path = storage.download_file(session, str(name), folder / Path(str(name)).name)
        return _file(path, "from the bucket")
    wanted = Path(name).with_suffix(".ipynb")
    templates = places.templates()
    folders = [Path.cwd(), places.project_root()]
    for kept in (places.project_root() / "notebooks", templates):
        folders += [kept, kept / "more"]
    for folder in folders:
        if (folder / wanted).is_file():
            path = (folder / wanted).resolve()
            known = [f for f in folders[-2:] if (f / path.name).is_file()]
            same = any(_sources(path) == _sources(f / path.name) for f in known)
            return _file(path, "the template as installed" if same else "your edited copy")
    names = {path.name for folder in folders for path in folder.glob("*.ipynb")}
    hint = near(wanted.name, names)
    raise NotFoundError(f'No notebook "{name}" in {Path.cwd()} or among the templates.{hint}')


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


def scan_secrets(path: str | Path, *, state: str | Path | None = None) -> None:
    """Refuse a notebook that shows a secret.

    Args:
        state: the local cloud's state folder, whose token is a secret too; default: this
            project's.
    Raises:
        NotebookError: says which cell and what kind, never the secret itself.
    """
    said = leaks.take_out(cells.read(path), Path(path).name, state)
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
    name, notebook = _being_edited(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    said = leaks.take_out(notebook, name)
    if said:
        raise NotebookError(f"{said} Remove it; nothing was stored.")
    content = nbformat.writes(notebook).encode()
    uri = f"gs://{session.bucket}/notebooks/{Path(name).stem}-{_sha256(content)}.ipynb"
    print(f"Storing {name} (without outputs) in bucket {session.bucket}, {session.location}")
    return storage.write_bytes(session, content, uri)


def _being_edited(name: str) -> tuple[str, nbformat.NotebookNode]:
    if "google.colab" in sys.modules:
        from google.colab import _message

        try:
            answer = _message.blocking_request("get_ipynb", request="", timeout_sec=30)
        except Exception as error:  # Colab's own MessageError: the page's error reply
            raise NotebookError(
                f"Colab's page answered with an error ({error}). Save the notebook there "
                "(File > Save), reload the page, then run this cell again."
            ) from error
        if not (answer and answer.get("ipynb", {}).get("cells")):
            raise NotebookError(
                "Colab did not hand over the notebook. Keep its tab open, try again."
            )
        known = answer["ipynb"].get("metadata", {}).get("colab", {}).get("name", "")
        return name or known or "notebook.ipynb", nbformat.from_dict(answer["ipynb"])
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    told = shell.user_ns.get("__vsc_ipynb_file__") if shell else ""
    name = name or told or os.environ.get("JPY_SESSION_NAME", "")
    if not name:
        raise SettingError(
            "This editor does not tell which file the notebook is. "
            'Name it: helpers.save_notebook(session, "01_prototype.ipynb").'
        )
    path = find_notebook(name).path
    return path.name, nbformat.read(path, as_version=4)


def _file(path: Path, origin: str) -> NotebookFile:
    return NotebookFile(path, path.stem, _sha256(path.read_bytes()), origin)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _sources(path: Path) -> list[str]:
    return [cell.source for cell in cells.read(path).cells]
