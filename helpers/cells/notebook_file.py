"""Which file the name of a notebook stands for."""

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

from helpers.cells.parameters import read
from helpers.cloud import folders as places
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.errors import NotFoundError, SettingError, near


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


def _file(path: Path, origin: str) -> NotebookFile:
    return NotebookFile(path, path.stem, sha256(path.read_bytes()), origin)


def sha256(content: bytes) -> str:
    """The first 12 hex digits of a content's SHA-256."""
    return hashlib.sha256(content).hexdigest()[:12]


def _sources(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells]
