"""Uploads to Cloud Storage: media, multipart and resumable ones."""

import mmap
import os
import re
from pathlib import Path
from urllib.parse import quote

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from helpers.emulator.front import calls, discovery
from helpers.emulator.front.calls import ApiError, Call
from helpers.emulator.services import blobs, buckets, conditions
from helpers.emulator.services.blobs import part_of
from helpers.emulator.services.buckets import LOCK
from helpers.emulator.services.storage_fields import serve, sift

SMALL_BYTES = 1 << 20  # received in memory
ABOUT_BYTES = 1 << 20  # metadata that opens a resumable upload


@serve("objects.insert", streamed=True)
async def insert_object(call: Call) -> dict | Response:
    """Media, multipart and resumable uploads."""
    if call.request.method in ("PUT", "DELETE"):
        return await _continue(call)
    bucket, kind = buckets.find(call), call.query.get("uploadType", "")
    if kind == "resumable":
        return await _open_session(call, bucket["name"])
    if kind not in ("media", "multipart"):
        raise ApiError(400, f"uploadType={kind!r}; expected media, multipart or resumable.")
    part = blobs.new_part(call.cloud)
    try:
        about, sums = await _taken(call, part, is_multipart=kind == "multipart")
        made = await _soon(call, bucket["name"], part, sums, _checked(call, about))
    finally:
        part.unlink(missing_ok=True)
    return blobs.shown(made, bucket)


async def _taken(call: Call, part: Path, *, is_multipart: bool) -> tuple[dict, dict]:
    """Leave an object's content in a file; give what is said of it, and its checksums."""
    headers = call.request.headers
    about = {"contentType": headers.get("content-type")}
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) <= SMALL_BYTES:
        content = await calls.read_body(call.request, SMALL_BYTES)
        if is_multipart:
            about, start, stop = _parted(content, about["contentType"] or "")
            content = content[start:stop]
        part.write_bytes(content)
        return about, blobs.digests([content])
    await _receive(call, part)
    if is_multipart:
        about = await run_in_threadpool(_part_file, part, about["contentType"] or "")
    return about, await run_in_threadpool(blobs.file_digests, part)


async def _soon(call: Call, bucket: str, part: Path, sums: dict, about: dict) -> dict:
    """Finish an upload: here where it takes a moment, in a thread where it may take longer."""
    arguments = (call, bucket, part, sums, about, call.query)
    try:
        is_quick = buckets.file_of(call.cloud, bucket, about["name"]).stat().st_size <= SMALL_BYTES
    except OSError:  # nothing is there
        is_quick = True
    if not is_quick or not LOCK.acquire(blocking=False):
        return await run_in_threadpool(_finish, *arguments)
    try:
        return _finish(*arguments)
    finally:
        LOCK.release()


async def _open_session(call: Call, bucket: str) -> Response:
    about = _json(await calls.read_body(call.request, ABOUT_BYTES))
    about.setdefault("contentType", call.request.headers.get("x-upload-content-type"))
    about = _checked(call, about)
    live = blobs.describe(call.cloud, bucket, about["name"])
    conditions.check(live, call.query, call.request.headers)
    upload_id = call.state.next_id()
    row = {"bucket": bucket, "about": about, "query": call.query}
    part = part_of(call.cloud, upload_id)
    call.state.put("upload", f"upload/{part.name}", row)
    part.touch()
    address = f"{call.cloud.url}/upload/storage/v1/b/{bucket}/o"
    address += f"?uploadType=resumable&name={quote(about['name'], safe='')}&upload_id={upload_id}"
    return Response(headers={"Location": address, "X-GUploader-UploadID": upload_id})


async def _continue(call: Call) -> dict | Response:
    """Take the next bytes of a resumable upload, or say how many there are."""
    part = part_of(call.cloud, re.sub(r"\D", "", call.query.get("upload_id", "")) or "none")
    row = call.state.get(f"upload/{part.name}")
    if row is None:
        raise ApiError(404, "No such upload session; start a new one.")
    if call.request.method == "DELETE":
        part.unlink(missing_ok=True)
        call.state.delete(f"upload/{part.name}")
        return Response(status_code=499)
    if "done" in row:  # the answer to the last chunk was lost
        return row["done"]
    if not part.exists():  # killed between putting the object in place and noting it
        found = await run_in_threadpool(
            blobs.describe, call.cloud, row["bucket"], row["about"]["name"]
        )
        if found and found["_print"][2] == row.get("inode"):
            return _note(call, part, row, found)
        part.touch()
    said = call.request.headers.get("content-range", "")
    match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", said)
    if said and not match:
        raise ApiError(400, f"Invalid Content-Range: {said!r}.")
    total = int(match[3]) if match and match[3] != "*" else None
    if match is None or match[1] is not None:
        start, size = int(match[1]) if match else 0, part.stat().st_size
        if start <= size:
            await _receive(call, part, at=size, skip=size - start)
        if match is None:
            total = part.stat().st_size
    size = part.stat().st_size
    if total is None or size < total:
        headers = {"Range": f"bytes=0-{size - 1}"} if size else {}
        return Response(status_code=308, headers=headers)
    if size > total:
        part.unlink()
        raise ApiError(400, f"The upload has {size} bytes; {total} were announced.")
    return await run_in_threadpool(_finish_session, call, part, row)


def _finish_session(call: Call, part: Path, row: dict) -> dict:
    call.state.put("upload", f"upload/{part.name}", row | {"inode": part.stat().st_ino})
    sums = blobs.file_digests(part)
    made = _finish(call, row["bucket"], part, sums, row["about"], row["query"])
    return _note(call, part, row, made)


def _note(call: Call, part: Path, row: dict, made: dict) -> dict:
    """Keep the answer to the last chunk: it may get lost, and be asked for again."""
    done = blobs.shown(made, buckets.find(call, row["bucket"]))
    call.state.put("upload", f"upload/{part.name}", row | {"done": done})
    return done


async def _receive(call: Call, part: Path, *, at: int = 0, skip: int = 0) -> None:
    """Append the request's body to a file, without the first `skip` bytes."""
    with open(part, "ab", buffering=0) as file:
        file.truncate(at)
        async for chunk in call.request.stream():
            if skip >= len(chunk):
                skip -= len(chunk)
                continue
            try:
                file.write(memoryview(chunk)[skip:])
            except OSError as error:
                raise ApiError(503, f"The local cloud can't store it: {error.strerror}.") from error
            skip = 0


def _parted(body: bytes | mmap.mmap, content_type: str) -> tuple[dict, int, int]:
    """What the first part of a multipart body says, and where the second, the content, is."""
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    if not match:
        raise ApiError(400, "Malformed multipart body.")
    mark = b"--" + match[1].encode()
    first = body.find(mark) + len(mark)
    line = b"\r\n" if body[first : first + 2] == b"\r\n" else b"\n"  # both are sent
    mark, blank = line + mark, 2 * line
    head = body.find(blank) + len(blank)
    second = body.find(mark, head)
    start = body.find(blank, second) + len(blank)
    stop = body.rfind(mark + b"--")
    if not len(blank) <= head <= second < start <= stop:
        raise ApiError(400, "Malformed multipart body.")
    kind = re.search(rb"(?i)content-type: *([^\r\n]+)", body[second:start])
    about = _json(body[head:second])
    about.setdefault("contentType", kind[1].decode("latin-1") if kind else None)
    return about, start, stop


def _part_file(part: Path, content_type: str) -> dict:
    """Leave the content of a multipart body in its file; give what is said of it."""
    with open(part, "r+b") as file:
        body = mmap.mmap(file.fileno(), 0) if os.fstat(file.fileno()).st_size else b""
        about, start, stop = _parted(body, content_type)
        body.move(0, start, stop - start)
        body.close()
        file.truncate(stop - start)
    return about


def _json(raw: bytes) -> dict:
    try:
        about = orjson.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise ApiError(400, f"Invalid JSON payload received. {error}") from error
    if not isinstance(about, dict):
        raise ApiError(400, "Invalid JSON payload received. Root element must be a message.")
    return about


def _checked(call: Call, about: dict) -> dict:
    """What the client says of the object, in the body, the query and headers: it must be sound
    before anything is stored."""
    about = sift("Object", discovery.check_body(discovery.by_id(call.method_id), about))
    query, headers = call.query, call.request.headers
    said = dict(re.findall(r"(crc32c|md5)=([\w+/=]+)", headers.get("x-goog-hash", "")))
    if query["uploadType"] == "media":  # of other uploads the header is of something else
        said = {"md5": headers.get("content-md5")} | said
    about = {"crc32c": said.get("crc32c"), "md5Hash": said.get("md5")} | about
    about["name"] = query.get("name") or about.get("name", "")
    about["contentType"] = about.get("contentType") or blobs.OCTETS
    about["contentEncoding"] = query.get("contentEncoding") or about.get("contentEncoding")
    blobs.settings(about)
    buckets.file_of(call.cloud, call.path["bucket"], about["name"])
    return about


def _finish(call: Call, bucket: str, part: Path, sums: dict, about: dict, query: dict) -> dict:
    """Check a received file and put it in place as an object, whole or not at all."""
    for key, value in sums.items():
        if about.get(key) not in (None, "", value):
            message = f"Provided {key} {about[key]!r} doesn't match calculated {value!r}."
            raise ApiError(400, message)
    return blobs.put(call, bucket, about["name"], part, sums, about, query)
