"""gs:// ⇄ files, checked by crc32c, resumable above 8 MiB, with progress."""

import base64
import contextlib
import io
import mimetypes
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import google_crc32c
from googleapiclient.http import MediaFileUpload, MediaIoBaseDownload, MediaIoBaseUpload
from tqdm import tqdm

from helpers.cloud.client import Session
from helpers.errors import CloudError, NotFoundError, SettingError

CHUNK_BYTES = 8 * 2**20


def split_uri(uri: str) -> tuple[str, str]:
    """`gs://bucket/a/b` → (`bucket`, `a/b`)."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not bucket:
        raise SettingError(f'"{uri}" is not a bucket address; expected gs://BUCKET/NAME.')
    return bucket, name


def upload_file(session: Session, path: str | Path, uri: str) -> str:
    """Store one file; the service's checksum must equal ours.

    Raises:
        CloudError: refused, or damaged on the way (the object is removed).
    """
    path = Path(path)
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    size_bytes = path.stat().st_size
    large = size_bytes > CHUNK_BYTES
    media = MediaFileUpload(str(path), mimetype=kind, chunksize=CHUNK_BYTES, resumable=large)
    return _insert(session, uri, media, _crc32c(path), size_bytes)


def write_bytes(session: Session, content: bytes, uri: str) -> str:
    """Store bytes as one object."""
    media = MediaIoBaseUpload(io.BytesIO(content), "application/octet-stream")
    checksum = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    return _insert(session, uri, media, checksum, len(content))


def upload_folder(session: Session, folder: str | Path, uri: str) -> str:
    """Store every file below a folder; a saved_model.pb goes last, so that a broken upload of a
    model is never taken for a model."""
    folder, uri = Path(folder), uri.rstrip("/")
    files = [file for file in folder.rglob("*") if file.is_file()]
    files.sort(key=lambda file: (file.name == "saved_model.pb", file))
    for file in files:
        upload_file(session, file, f"{uri}/{file.relative_to(folder).as_posix()}")
    return uri + "/"


def download_file(session: Session, uri: str, path: str | Path) -> Path:
    """Fetch one object; the file appears only when it is whole and its checksum right."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with open(part, "wb") as sink:
        expected = _get(session, uri, sink)
    found = _crc32c(part)
    if expected and found != expected:
        part.unlink()
        raise CloudError(f"{uri} arrived damaged (crc32c {found}, expected {expected}). Try again.")
    return part.replace(path)


def download_folder(session: Session, uri: str, folder: str | Path) -> Path:
    """Fetch every object below a prefix; one that stands for an empty folder becomes a folder."""
    prefix = uri.rstrip("/") + "/"
    for found in list_uris(session, prefix):
        path = Path(folder) / found.removeprefix(prefix)
        if found.endswith("/"):
            path.mkdir(parents=True, exist_ok=True)
        else:
            download_file(session, found, path)
    return Path(folder)


def read_bytes(session: Session, uri: str) -> bytes:
    """The content of one object."""
    sink = io.BytesIO()
    expected, content = _get(session, uri, sink), sink.getvalue()
    found = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    if expected and found != expected:
        raise CloudError(f"{uri} arrived damaged (crc32c {found}, expected {expected}). Try again.")
    return content


def read_part(session: Session, uri: str, start: int, size_bytes: int) -> bytes:
    """Bytes of an object from `start` on."""
    bucket, name = split_uri(uri)
    request = session.objects.get_media(bucket=bucket, object=name)
    request.headers["range"] = f"bytes={start}-{start + size_bytes - 1}"
    return session.call(request)


def list_uris(session: Session, uri: str) -> list[str]:
    """The addresses of all objects whose name starts as `uri` does."""
    return list(sizes(session, uri))


def sizes(session: Session, uri: str) -> dict[str, int]:
    """The addresses of all objects whose name starts as `uri` does, and their bytes."""
    bucket, prefix = split_uri(uri)
    objects = session.objects
    fields = "items(name,size),nextPageToken"
    found = session.list(objects, "items", bucket=bucket, prefix=prefix, fields=fields)
    return {f"gs://{bucket}/{item['name']}": int(item["size"]) for item in found}


def delete(session: Session, uri: str) -> int:
    """Remove one object, or all below a prefix that ends in `/`; the number removed."""
    uris = list_uris(session, uri) if uri.endswith("/") else [uri]
    objects = session.objects
    for found in uris:
        bucket, name = split_uri(found)
        session.call(objects.delete(bucket=bucket, object=name), unless=404)
    return len(uris)


def _insert(session: Session, uri: str, media, checksum: str, size_bytes: int) -> str:
    bucket, name = split_uri(uri)
    objects = session.objects
    request = objects.insert(bucket=bucket, name=name, media_body=media)
    if media.resumable():
        with progress(f"upload {Path(name).name}", size_bytes) as said:
            found = None
            while found is None:
                status, found = session.attempt(
                    lambda: request.next_chunk(http=session.http()), request
                )
                said(status.resumable_progress if status else size_bytes)
    else:
        found = session.call(request, repeatable=True)
    if found["crc32c"] != checksum:
        mine = {"bucket": bucket, "object": name, "generation": found["generation"]}
        session.call(objects.delete(**mine), unless=404)
        raise CloudError(f"{uri} was damaged on the way (crc32c {found['crc32c']}). Try again.")
    return uri


def _get(session: Session, uri: str, sink) -> str:
    """Write an object's content to `sink`; its crc32c, "" where the service unpacked it: what is
    stored with the content encoding gzip is read as it was before."""
    bucket, name = split_uri(uri)
    objects = session.objects
    about = session.call(objects.get(bucket=bucket, object=name), unless=404)
    if about is None:
        raise NotFoundError(f"{uri} does not exist.")
    size_bytes, packed = int(about["size"]), about.get("contentEncoding") == "gzip"
    if size_bytes:
        request = objects.get_media(bucket=bucket, object=name, generation=about["generation"])
        if packed:
            request.headers["accept-encoding"] = "identity"
        download = MediaIoBaseDownload(sink, request, chunksize=CHUNK_BYTES)

        def step() -> tuple:
            request.http = session.http()  # another one after a failure
            return download.next_chunk()

        with progress(f"download {Path(name).name}", size_bytes) as said:
            done = False
            while not done:
                status, done = session.attempt(step, request)
                said(status.resumable_progress)
    return "" if packed else about.get("crc32c", "")


def _crc32c(path: Path) -> str:
    checksum = google_crc32c.Checksum()
    with open(path, "rb") as file:
        for _ in checksum.consume(file, CHUNK_BYTES):
            pass
    return base64.b64encode(checksum.digest()).decode()


@contextlib.contextmanager
def progress(what: str, size_bytes: int) -> Iterator[Callable[[int], None]]:
    """A bar for transfers that take a while; gives a function that takes the bytes done so far."""
    small = size_bytes <= CHUNK_BYTES
    with tqdm(
        total=size_bytes, desc=what, unit="B", unit_scale=True, file=sys.stdout, disable=small,
        mininterval=0.5,
    ) as bar:  # fmt: skip
        yield lambda done: bar.update(done - bar.n)
