"""Objects of Cloud Storage: listed, read, changed, deleted."""

import base64
import gzip
import json
import re
from collections.abc import Iterator

from starlette.responses import Response, StreamingResponse

from helpers.emulator.front.calls import ApiError, Call
from helpers.emulator.services import blobs, buckets, conditions
from helpers.emulator.services.blobs import CHUNK_BYTES, OCTETS
from helpers.emulator.services.buckets import LOCK
from helpers.emulator.services.storage_fields import serve

HEADERS = {
    "Cache-Control": "cacheControl", "Content-Disposition": "contentDisposition",
    "Content-Language": "contentLanguage", "ETag": "etag", "X-Goog-Generation": "generation",
    "X-Goog-Metageneration": "metageneration", "X-Goog-Storage-Class": "storageClass",
    "X-Goog-Stored-Content-Length": "size",
}  # fmt: skip


@serve("objects.list")
def list_objects(call: Call) -> dict:
    bucket, query = buckets.find(call), call.query
    names, prefixes = _matching(call, bucket["name"])
    entries = [(name, "", False) for name in names] + [(name, "", True) for name in prefixes]
    if query.get("versions"):
        versions, wanted = call.state.list("version", bucket["name"]), set(names)
        entries += [(v["name"], v["generation"], False) for v in versions if v["name"] in wanted]
    # Versions of a name come before the live object, the oldest first.
    entries.sort(key=lambda entry: (entry[0], int(entry[1] or 2**63)))
    token = base64.urlsafe_b64decode(query.get("pageToken", "")).decode(errors="replace")
    if token:
        name, _, generation = token.partition("\n")
        after = (name, int(generation or 2**63) if generation.isdecimal() or not generation else 0)
        entries = [e for e in entries if (e[0], int(e[1] or 2**63)) > after]
    size = int(query.get("maxResults") or 1000)
    page, answer = entries[:size], {"kind": "storage#objects"}
    found = [_entry(call, bucket["name"], name, generation) for name, generation, is_prefix in page
             if not is_prefix]  # fmt: skip
    if any(found):
        answer["items"] = [blobs.shown(item, bucket) for item in found if item]
    if any(is_prefix for *_, is_prefix in page):
        answer["prefixes"] = [name for name, _, is_prefix in page if is_prefix]
    if len(entries) > size:
        last = "\n".join(page[-1][:2])
        answer["nextPageToken"] = base64.urlsafe_b64encode(last.encode()).decode()
    return answer


def _matching(call: Call, bucket: str) -> tuple[list[str], list[str]]:
    """Names of objects that a list asks for, and prefixes in place of those behind a delimiter."""
    query, key = call.query, f"gs://{bucket}/"
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    first, last = query.get("startOffset", ""), query.get("endOffset", "")
    try:
        fits = re.compile(_glob(query.get("matchGlob", "**")), re.DOTALL).fullmatch
    except re.error as error:
        raise ApiError(400, f"Invalid matchGlob: {error}.") from error
    found = set(buckets.files_in(call.cloud, bucket, prefix))
    for kind in ("apart", "version") if query.get("versions") else ("apart",):
        kept = call.state.names(kind, key + prefix)
        found.update(name.removeprefix(key).partition("\n")[0] for name in kept)
    names, prefixes = [], []
    for name in sorted(found):
        if not name.startswith(prefix) or name < first or (last and name >= last) or not fits(name):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            before = prefix + rest[: rest.index(delimiter)] + delimiter
            if not prefixes or prefixes[-1] != before:
                prefixes.append(before)
            if name != before or not query.get("includeTrailingDelimiter"):
                continue
        names.append(name)
    return names, prefixes


def _entry(call: Call, bucket: str, name: str, generation: str) -> dict | None:
    """The live object, or one of its versions."""
    if not generation:
        return blobs.describe(call.cloud, bucket, name)
    found = blobs.find(call, bucket, name, generation)
    return found if found and "timeDeleted" in found else None


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
