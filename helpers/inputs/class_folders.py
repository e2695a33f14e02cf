"""A folder or zip with one sub-folder a class: found, unpacked, its files by class."""

import contextlib
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

from helpers.cloud import cache, folders
from helpers.cloud.client import Session
from helpers.errors import DataError, NotFoundError, SettingError, near

BUILT_IN = ("digits",)
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
SYSTEM = re.compile(r"(^|/)(\.|__MACOSX(/|$)|Thumbs\.db$|desktop\.ini$)", re.IGNORECASE)
LIMIT_BYTES = 20 * 2**30  # unpacked; more is a mistake or an attack


def scratch(stack: contextlib.ExitStack) -> Path:
    """A new folder that goes with the stack."""
    folder = Path(tempfile.mkdtemp(prefix="images-"))
    stack.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder


def fetched(source: str, session: Session | None, stack: contextlib.ExitStack) -> Path:
    """The folder or zip on this machine, unpacked; what is made for it goes with the stack."""
    if re.match("https?://", source):
        raise SettingError(
            f'DATA="{source}": pictures are read from a folder or zip on this machine or in a '
            "bucket. Download it first."
        )
    bucket = source.startswith("gs://")
    path = cache.fetch(source, session=session) if bucket else _found(source)
    if path.is_dir():
        return path
    if not zipfile.is_zipfile(path):
        raise DataError(f"{source} is one file, and no zip; expected a folder or a zip of it.")
    folder = scratch(stack)
    with zipfile.ZipFile(path) as archive:
        inside = [entry for entry in archive.infolist() if not SYSTEM.search(entry.filename)]
        size_bytes = sum(entry.file_size for entry in inside)
        if size_bytes > LIMIT_BYTES:
            raise DataError(
                f"{source} holds {size_bytes / 2**30:,.0f} GiB unpacked; at most "
                f"{LIMIT_BYTES / 2**30:.0f} are. Unpack it yourself and give the folder."
            )
        try:
            archive.extractall(folder, inside)
        except (OSError, RuntimeError, zipfile.BadZipFile, NotImplementedError) as error:
            raise DataError(f"{source} can't be unpacked ({error}). Make the zip again.") from error
    return folder


def _found(source: str) -> Path:
    for folder in (Path.cwd(), folders.project_root()):
        if source and (folder / source).exists():
            return folder / source
    around = near(source, [*BUILT_IN, *(p.name for p in Path.cwd().iterdir() if p.is_dir())])
    raise NotFoundError(f'DATA="{source}": no such folder or zip in {Path.cwd()}.{around}')


def root(folder: Path, source: str) -> Path:
    """The folder whose sub-folders are the classes; a zip often holds one folder that has them."""
    inside = _folders(folder)
    while len(inside) == 1 and _folders(inside[0]):
        folder, inside = inside[0], _folders(inside[0])
    if not inside:
        raise DataError(
            f"{source} has no sub-folders; expected one a class, with its pictures in it."
        )
    names = {path.name.lower() for path in inside}
    if names <= SPLITS and any(_folders(path) for path in inside):
        raise DataError(
            f'{source} is split already ("{inside[0].name}" …); expected a sub-folder a class. '
            f"Give {source.rstrip('/')}/{inside[-1].name}: a quarter of it is held back."
        )
    return folder


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not SYSTEM.search(p.name))


def files(root: Path) -> tuple[list[Path], list[str]]:
    """Every file below the classes' folders, and its class."""
    found, labels = [], []
    for folder in _folders(root):
        below = [file for file in sorted(folder.rglob("*")) if _seen(file, root)]
        found, labels = found + below, labels + [folder.name] * len(below)
    return found, labels


def _seen(file: Path, root: Path) -> bool:
    return file.is_file() and not SYSTEM.search(file.relative_to(root).as_posix())
