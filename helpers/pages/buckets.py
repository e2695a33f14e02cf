"""Buckets: folders, previews that can do nothing, downloads. Nothing is stored or deleted."""

import contextlib
import csv
import io
import itertools
import json
import posixpath
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from helpers.cloud import storage
from helpers.cloud.folders import PACKAGE
from helpers.errors import CloudError, NotFoundError, SettingError
from helpers.pages.views import Page, Session, Visit

PREVIEW_BYTES = 200_000
LIMITS = {"image": 10_000_000, "notebook": 30_000_000, "page": 30_000_000}  # bytes shown in a frame
ROWS, COLUMNS, SHOWN = 50, 40, 1000
PART_BYTES = 2**20
MEDIA = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif",
          ".webp": "image/webp", ".bmp": "image/bmp", ".svg": "image/svg+xml"}  # fmt: skip
# What comes out of a bucket was written by anybody: it is shown without scripts, links or cookies.
BOXED = {
    "Content-Security-Policy": "sandbox; default-src 'none'; img-src data:; style-src "
    "'unsafe-inline'; font-src data:; form-action 'none'; frame-ancestors 'self'",
}
RENDER = "import sys; from helpers.looks.report import html_report; html_report(*sys.argv[1:])"


def listed(visit: Visit) -> Page:
    session = visit.session
    buckets = session.service("storage").buckets()
    found = session.list(buckets, "items", project=session.project)
    return Page("buckets.html", {"buckets": found})


def folder(visit: Visit) -> Page:
    session, bucket = visit.session, visit.path["bucket"]
    prefix = visit.query.get("prefix", "")
    if prefix and not prefix.endswith("/"):
        prefix += "/"
    objects, folders, files = session.service("storage").objects(), [], []
    request = objects.list(bucket=bucket, prefix=prefix, delimiter="/")
    while request is not None and len(files) < SHOWN:
        answer = session.call(request, repeatable=True)
        folders += answer.get("prefixes", [])
        files += [item for item in answer.get("items", []) if item["name"] != prefix]
        request = objects.list_next(request, answer)
    if not folders and not files and prefix:
        raise NotFoundError(f"Nothing is below gs://{bucket}/{prefix}.")
    return Page("bucket.html", {
        "bucket": bucket, "prefix": prefix, "folders": folders[:SHOWN], "files": files[:SHOWN],
        "more": request is not None, "trail": trail(prefix),
    })  # fmt: skip


def trail(name: str) -> list[tuple[str, str]]:
    """The folders above a name: what each is called, and its prefix."""
    parts = name.rstrip("/").split("/") if name else []
    return [(part, "/".join(parts[: n + 1]) + "/") for n, part in enumerate(parts)]


def preview(visit: Visit) -> Page:
    session, about = visit.session, _about(visit)
    name, size = about["name"], int(about["size"])
    kind, shown, rows, cut = kind_of(name), "", [], size > PREVIEW_BYTES
    if kind in ("text", "json", "table"):
        raw = _part(session, about, 0, PREVIEW_BYTES)
        if b"\0" in raw:
            kind = "none"
        text = raw.decode("utf-8", errors="replace")
        if kind == "json" and not cut:
            try:
                text = json.dumps(json.loads(text), indent=2, ensure_ascii=False)
            except ValueError:
                kind = "text"  # named .json, holds something else
        if kind == "table":
            rows = _rows(text if not cut else text.rpartition("\n")[0], name)
            cut = cut or text.count("\n") > ROWS
        shown = text
    if kind != "page" and size > LIMITS.get(kind, size):
        kind = "none"
    return Page("object.html", {
        "bucket": about["bucket"], "about": about, "kind": kind, "text": shown, "rows": rows,
        "cut": cut, "trail": trail(posixpath.dirname(name)), "base": posixpath.basename(name),
    })  # fmt: skip


def kind_of(name: str) -> str:
    """How an object is shown, by the end of its name."""
    end = posixpath.splitext(name)[1].lower()
    if end in MEDIA and end != ".svg":
        return "image"
    known = {".html": "page", ".htm": "page", ".svg": "page", ".ipynb": "notebook", ".csv": "table",
             ".tsv": "table", ".json": "json"}  # fmt: skip
    plain = (".txt", ".md", ".py", ".log", ".jsonl", ".yaml", ".yml", ".toml", ".cfg", ".sh", "")
    return known.get(end, "text" if end in plain or name.endswith("Dockerfile") else "none")


def _rows(text: str, name: str) -> list[list[str]]:
    sample = text[:10_000]
    try:
        dialect = csv.Sniffer().sniff(sample, delimiters=",;\t|")
    except csv.Error:
        dialect = "excel-tab" if name.endswith(".tsv") else "excel"
    rows = []
    with contextlib.suppress(csv.Error):  # what could be read is shown
        for row in itertools.islice(csv.reader(io.StringIO(text), dialect), ROWS + 1):
            rows.append([cell[:200] for cell in row[:COLUMNS]])
    return rows


def raw(visit: Visit) -> Response:
    """An object's bytes: boxed for a frame (`as=page`), or as a download."""
    session, about = visit.session, _about(visit)
    name, size = about["name"], int(about["size"])
    if visit.query.get("as") == "page":
        kind, end = kind_of(name), posixpath.splitext(name)[1].lower()
        if size > LIMITS.get(kind, -1):
            raise SettingError(f"Not a page: {posixpath.basename(name)}; download it.")
        make = _report if kind == "notebook" else _whole
        of = MEDIA.get(end, "text/html")
        return Response(make(session, about), media_type=of, headers=BOXED)

    def parts():
        for start in range(0, size, PART_BYTES):
            yield _part(session, about, start, PART_BYTES)

    base = posixpath.basename(name)[:200]
    plain = re.sub(r"[^\w.-]", "_", base, flags=re.ASCII) or "object"
    said = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(base)}"
    headers = BOXED | {"Content-Disposition": said, "Content-Length": str(size)}
    return StreamingResponse(parts(), media_type="application/octet-stream", headers=headers)


def _about(visit: Visit) -> dict:
    """The object that an address names, as the service has it."""
    bucket, name = visit.path["bucket"], visit.query.get("name", "")
    if not name:
        raise NotFoundError("No object is named.")
    objects = visit.session.service("storage").objects()
    found = visit.session.call(objects.get(bucket=bucket, object=name), unless=404)
    if found is None:
        uri = f"gs://{bucket}/{name}"
        raise NotFoundError(f"{uri} does not exist.")
    return found


def _whole(session: Session, about: dict) -> bytes:
    return _part(session, about, 0, int(about["size"]))


def _part(session: Session, about: dict, start: int, size_bytes: int) -> bytes:
    if not int(about["size"]):
        return b""
    uri = f"gs://{about['bucket']}/{about['name']}"
    return storage.read_part(session, uri, start, size_bytes)


def _report(session: Session, about: dict) -> bytes:
    """A notebook as a page, made in a process of its own: what renders it is large."""
    with tempfile.TemporaryDirectory() as folder:
        source, made = Path(folder, "notebook.ipynb"), Path(folder, "notebook.html")
        source.write_bytes(_whole(session, about))
        command = [sys.executable, "-c", RENDER, str(source), str(made)]
        done = subprocess.run(
            command, cwd=PACKAGE.parent, capture_output=True, timeout=60, check=False
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise CloudError(f"Not a notebook that can be shown: {about['name']} ({said[:300]}).")
        return made.read_bytes()
