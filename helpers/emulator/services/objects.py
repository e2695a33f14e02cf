"""Objects of Cloud Storage: listed, read, changed, deleted."""

import base64
import bisect
import gzip
import itertools
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from helpers.emulator.front.calls import ApiError, Call
from helpers.emulator.services import blobs, buckets, conditions
from helpers.emulator.services.blobs import CHUNK_BYTES, OCTETS
from helpers.emulator.services.buckets import LOCK
from helpers.emulator.services.storage_fields import serve

LIVE = 2**62  # in place of a generation: after all versions
HEADERS = {
    "Cache-Control": "cacheControl", "Content-Disposition": "contentDisposition",
    "Content-Language": "contentLanguage", "ETag": "etag", "X-Goog-Generation": "generation",
    "X-Goog-Metageneration": "metageneration", "X-Goog-Storage-Class": "storageClass",
    "X-Goog-Stored-Content-Length": "size",
}  # fmt: skip


@serve("objects.list")
def list_objects(call: Call) -> dict:
    bucket, query = buckets.find(call), call.query
    size = buckets.page_size(call)
    page = list(itertools.islice(_entries(call, bucket["name"]), size + 1))
    is_last, page = len(page) <= size, page[:size]
    live = [name for name, generation, is_prefix in page if generation == LIVE and not is_prefix]
    known, key = {}, f"gs://{bucket['name']}/"
    if live and not query.get("delimiter"):  # what is between them is on the page, too
        known = call.state.between("object", key + live[0], key + live[-1])
    items, prefixes = [], []
    for name, generation, is_prefix in page:
        if is_prefix:
            prefixes.append(name)
        elif generation == LIVE:
            items.append(blobs.describe(call.cloud, bucket["name"], name, known.get(key + name)))
        else:
            found = blobs.find(call, bucket["name"], name, str(generation))
            items.append(found if found and "timeDeleted" in found else None)
    items = [blobs.shown(item, bucket) for item in items if item]
    answer = {"kind": "storage#objects", "items": items, "prefixes": prefixes}
    answer = {key: value for key, value in answer.items() if value}
    if not is_last:
        token = base64.urlsafe_b64encode(orjson.dumps(page[-1])).decode()
        answer["nextPageToken"] = token
    return answer


def _entries(call: Call, bucket: str) -> Iterator[tuple[str, int, bool]]:
    """(name, generation, whether it is a prefix) of all that a list has after its page token; the
    versions of a name come before the live object, the oldest first."""
    query, prefix = call.query, call.query.get("prefix", "")
    delimiter, last = query.get("delimiter", ""), query.get("endOffset", "")
    fits, after = _fits(query.get("matchGlob", "")), _after(query.get("pageToken", ""))
    versions: dict[str, list[int]] = {}
    for row in call.state.list("version", bucket) if query.get("versions") else []:
        versions.setdefault(row["name"], []).append(int(row["generation"]))
    names, key = buckets.files_in(call.cloud, bucket, prefix), f"gs://{bucket}/"
    apart = [name.removeprefix(key) for name in call.state.names("apart", key + prefix)]
    if apart or versions:
        names = sorted({*names, *apart, *versions})
    i = bisect.bisect_left(names, max(prefix, query.get("startOffset", ""), after[0]))
    while i < len(names) and names[i].startswith(prefix) and not (last and names[i] >= last):
        name, i = names[i], i + 1
        if not fits(name):
            continue
        start = name.find(delimiter, len(prefix)) if delimiter else -1
        is_behind, end = start >= 0, start + len(delimiter)
        found = []
        if not is_behind or (query.get("includeTrailingDelimiter") and end == len(name)):
            found += [(name, number, False) for number in [*sorted(versions.get(name, [])), LIVE]]
        if is_behind:
            found.append((name[:end], LIVE, True))
            i = bisect.bisect_left(names, name[:end] + "\U0010ffff", i)
        yield from (entry for entry in found if entry > after)


def _after(token: str) -> tuple[str, int, bool]:
    """The last entry of the page before."""
    if not token:
        return "", 0, False
    try:
        name, generation, is_prefix = orjson.loads(base64.urlsafe_b64decode(token))
        return str(name), int(generation), bool(is_prefix)
    except (ValueError, TypeError) as error:
        raise ApiError(400, "Invalid pageToken.") from error


def _fits(glob: str) -> Callable[[str], Any]:
    if not glob:
        return lambda name: True
    try:
        return re.compile(_glob(glob), re.DOTALL).fullmatch
    except re.error as error:
        raise ApiError(400, f"Invalid matchGlob: {error}.") from error


def _glob(text: str) -> str:
    """The regular expression of a `matchGlob`: *, **, ?, [abc], [!a], {one,two}."""
    kinds = {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    made = []
    for part in re.findall(r"\*\*/|\*\*|\*|\?|\[[^]]+\]|\{[^}]*\}|\\?.", text, re.DOTALL):
        if part[0] == "{" and len(part) > 1:
            made.append(f"({'|'.join(map(_glob, part[1:-1].split(',')))})")
        elif part[0] == "[" and len(part) > 1:
            made.append("[" + re.sub(r"[\\[]", r"\\\g<0>", part[1:]).replace("!", "^", 1))
        else:
            made.append(kinds.get(part) or re.escape(part.removeprefix("\\") or part))
    return "".join(made)


@serve("objects.get")
def get_object(call: Call) -> dict | Response:
    bucket = buckets.find(call)
    with LOCK:
        found = _asked(call, reading=True)
        if call.query.get("alt") != "media":
            return blobs.shown(found, bucket)
        file = open(blobs.place_of(call.cloud, found), "rb")  # noqa: SIM115 - closed by the stream
    return _media(file, found, call.request.headers)


@serve("objects.patch", "objects.update")
def change_object(call: Call) -> dict:
    """`update` replaces: what it does not name is cleared."""
    bucket, body = buckets.find(call), call.body
    with LOCK:
        before = found = _asked(call)
        if body.get("storageClass", found["storageClass"]) != found["storageClass"]:
            raise ApiError(400, "The storageClass of an object is changed by rewriting it.")
        if call.method_id.endswith("update"):
            found = {key: value for key, value in found.items() if key not in blobs.FREE}
        free = {key: value for key, value in body.items() if key in blobs.FREE}
        made = buckets.changed(found, free | blobs.settings(free))
        if made.get("customTime", "") < before.get("customTime", ""):
            raise ApiError(400, "customTime can't be removed or set to an earlier time.")
        if before.get("eventBasedHold") and not made.get("eventBasedHold"):
            made["_released"] = made["updated"]  # retention begins
        made["etag"] = buckets.etag(made["generation"], made["metageneration"])
        return blobs.shown(blobs.save(call.cloud, made), bucket)


@serve("objects.delete")
def delete_object(call: Call) -> Response:
    bucket = buckets.find(call)
    with LOCK:
        found = _asked(call)
        blobs.remove(call.cloud, bucket, found, for_good="generation" in call.query)
    return Response(status_code=204)


def _asked(call: Call, *, reading: bool = False) -> dict:
    """The object, or the version of it, that a call names and whose conditions it meets."""
    bucket, name = call.path["bucket"], call.path["object"]
    found = blobs.find(call, bucket, name, call.query.get("generation"))
    if found is None and call.query.get("ifGenerationMatch", "0") == "0":
        raise blobs.missing(bucket, name)
    conditions.check(found, call.query, call.request.headers, reading=reading)
    if found is None:
        raise blobs.missing(bucket, name)
    return found


def _media(file, found: dict, asked) -> Response:
    """An object's content: a range of it, or what is compressed decompressed for a client that
    takes it so only [D: storage/docs/transcoding]."""
    size, encoding = int(found["size"]), found.get("contentEncoding", "")
    headers = {name: found[key] for name, key in HEADERS.items() if key in found}
    headers["Content-Type"] = found.get("contentType", "")  # not media_type: it adds a charset
    sums = {"crc32c": found["crc32c"], "md5": found.get("md5Hash")}
    headers["X-Goog-Hash"] = ",".join(f"{name}={value}" for name, value in sums.items() if value)
    headers["X-Goog-Stored-Content-Encoding"] = encoding or "identity"
    headers = {n: v for n, v in headers.items() if v and v.isascii() and v.isprintable()}
    headers.setdefault("Content-Type", OCTETS)
    if encoding == "gzip" and _unpacks(file, found, asked.get("accept-encoding", "")):
        headers["Warning"] = "214 UploadServer gunzipped"
        return StreamingResponse(_chunks(file, gzip.open(file)), 200, headers)
    if encoding and encoding.isascii() and encoding.isprintable():
        headers["Content-Encoding"] = encoding
    headers["Accept-Ranges"] = "bytes"
    start, stop, status = 0, size, 200
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.get("range", ""))
    if match and (match[1] or match[2]):
        start = int(match[1]) if match[1] else max(0, size - int(match[2]))
        stop = min(int(match[2]) + 1, size) if match[1] and match[2] else size
        status = 206
        if start >= size or stop <= start:
            file.close()
            problem = ApiError(416, "The requested range cannot be satisfied.")
            return Response(json.dumps(problem.body()), 416, {"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    file.seek(start)
    return StreamingResponse(_chunks(file, file, stop - start), status, headers)


def _unpacks(file, found: dict, accepted: str) -> bool:
    if re.search(r"\bgzip\b(?!\s*;\s*q=0(\.0*)?\s*(,|$))", accepted):
        return False
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    return is_packed and "no-transform" not in found.get("cacheControl", "")


def _chunks(file, content, left: int | None = None) -> Iterator[bytes]:
    """Bytes of an open file's content, all or so many; the file is closed at the end."""
    with file:
        while chunk := content.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
            left = None if left is None else left - len(chunk)
            yield chunk
