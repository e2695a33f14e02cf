"""Files that hold data: found by name or pattern, brought to this machine's disk, unpacked."""

import codecs
import contextlib
import fnmatch
import glob
import gzip
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from helpers.cloud import environment, folders, storage
from helpers.cloud.client import Session
from helpers.errors import CloudError, DataError, NotFoundError, near

BUILT_IN = ("breast_cancer", "diabetes", "game_sales", "wine")
TABLES = ("*.csv", "*.tsv", "*.jsonl", "*.parquet", "*.xlsx", "*.zip", "*.gz")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def find_files(source: str) -> list[Path]:
    """The files on this machine that `source` names, from the working directory or the project.

    Raises:
        NotFoundError: it has a `*` that matches no file, or is on a Drive that is not mounted.
    """
    if source in BUILT_IN or re.match(r"gs://|https?://", source):
        return []
    if source.startswith("/content/drive/") and not Path("/content/drive/MyDrive").is_dir():
        how = 'from google.colab import drive; drive.mount("/content/drive")'
        raise NotFoundError(f'DATA="{source}" is on a Drive that is not mounted. Run: {how}')
    for around in (Path.cwd, folders.project_root):
        path = around() / source
        if found := sorted(glob.glob(str(path))) if "*" in source else [path] * path.is_file():
            return [Path(file) for file in found]
    if "*" in source:
        raise _no_match(source)
    return []


def find(source: str, session: Session | None) -> dict[str, int]:
    """The files that a path, an address or a pattern such as `gs://bucket/part-*.csv` names.

    Returns:
        Path or address -> size in bytes, 0 for an address whose size nobody asked for.
    Raises:
        NotFoundError: none.
    """
    if re.match("https?://", source):
        return {source: 0}
    if not source.startswith("gs://"):
        found = {str(path): path.stat().st_size for path in find_files(source)}
    elif "*" in source:
        listed = storage.sizes(session or environment.from_environment(), source.partition("*")[0])
        found = {uri: size for uri, size in listed.items() if fnmatch.fnmatchcase(uri, source)}
    else:
        return {source: 0}
    if not found and "*" in source:
        raise _no_match(source)
    if not found:
        beside = (file.name for pattern in TABLES for file in Path.cwd().glob(pattern))
        around = near(source, [*BUILT_IN, *beside])
        raise NotFoundError(f'DATA="{source}": no such file in {Path.cwd()}.{around}')
    return found


def _no_match(pattern: str) -> NotFoundError:
    return NotFoundError(f'DATA="{pattern}" matches no file; look at the part before the *.')


@contextlib.contextmanager
def on_disk(name: str, session: Session | None = None) -> Iterator[Path]:
    """A file on this machine, unpacked if it is compressed; what had to be made goes afterwards."""
    with contextlib.ExitStack() as stack:

        def made() -> Path:
            return Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="data-")), "file")

        path = Path(name)
        if name.startswith("gs://"):
            cloud = session or environment.from_environment()
            path = storage.download_file(cloud, name, made())
        elif re.match("https?://", name):
            path = _downloaded(name, made())
        while plain := _unpacked(path, name, made):
            path = plain
        yield path


def _downloaded(address: str, path: Path) -> Path:
    import httplib2

    try:
        answer, content = httplib2.Http(timeout=60).request(address)
    except (OSError, httplib2.HttpLib2Error) as error:
        raise CloudError(f"{address} did not answer ({error}). Try again.") from error
    if answer.status != 200:
        raise NotFoundError(f"{address} answered {answer.status}; expected a CSV file.")
    path.write_bytes(content)
    return path


def _unpacked(path: Path, name: str, place: Callable[[], Path]) -> Path | None:
    """What to read in place of a compressed file or one in UTF-16; None if it is neither."""
    with open(path, "rb") as file:
        start = file.read(4)
    with contextlib.ExitStack() as stack:
        try:
            if start[:2] in UTF16:
                text = open(path, encoding="utf-16", errors="replace", newline="")  # noqa: SIM115
                source = codecs.iterencode(iter(lambda: text.read(2**20), ""), "utf-8")
                stack.enter_context(text)
            elif start[:2] == b"\x1f\x8b":
                file = stack.enter_context(gzip.open(path))
                source = iter(lambda: file.read(2**20), b"")
            elif start == b"PK\x03\x04" and zipfile.is_zipfile(path):
                archive = stack.enter_context(zipfile.ZipFile(path))
                if "[Content_Types].xml" in archive.namelist():
                    return None  # a spreadsheet is a zip, too
                file = stack.enter_context(archive.open(_only_member(archive, name)))
                source = iter(lambda: file.read(2**20), b"")
            else:
                return None
            plain = place()
            with open(plain, "wb") as sink:
                sink.writelines(source)
            return plain
        except (EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
            raise DataError(
                f"{name} can't be unpacked ({error}). Unpack it yourself, or save it again."
            ) from error


def _only_member(archive: zipfile.ZipFile, name: str) -> str:
    """The one file of a zip, leaving aside what systems put in by themselves."""
    inside = [entry.filename for entry in archive.infolist() if not entry.is_dir()]
    inside = [file for file in inside if not re.search(r"(^|/)(\.|__MACOSX/)", file)]
    if len(inside) != 1:
        shown = ", ".join(inside[:4]) + (", …" if len(inside) > 4 else "")
        raise DataError(
            f"{name} is a zip of {len(inside)} files ({shown}); expected one table. Unpack it, "
            "and give the file you mean."
        )
    return inside[0]
