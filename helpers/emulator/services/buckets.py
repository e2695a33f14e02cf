"""Cloud Storage on plain files: `gs://BUCKET/a/b` is DIR/buckets/BUCKET/a/b.

The file is the truth; SQLite keeps what a file can't hold (generation, checksums, metadata) beside
its size, time and inode. Where they differ (another program wrote the file) it is looked at anew.
"""

import base64
import contextlib
import hashlib
import json
import mmap
import os
import re
import shutil
import threading
import time
from pathlib import Path
from urllib.parse import quote

import google_crc32c
import orjson
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from helpers.emulator.front import calls
from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    method,
    now,
    on_start,
    project_number,
)

CHUNK_BYTES = 1 << 20
ABOUT_BYTES = 1 << 20  # metadata that opens a resumable upload
POLICY = {"kind": "storage#policy", "version": 1, "etag": "CAE="}
_finishing = threading.RLock()  # one object is put in place, read or removed at a time


def path_of(cloud: Cloud, uri: str) -> Path:
    """The plain file or folder behind a gs:// address."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}", bucket):
        raise ApiError(400, f"{uri!r} is not a Cloud Storage address; expected gs://BUCKET/NAME.")
    return _file(cloud, bucket, name.strip("/")) if name.strip("/") else _folder(cloud, bucket)


def describe(cloud: Cloud, bucket: str, name: str) -> dict | None:
    """An object's resource, or None."""
    path = _file(cloud, bucket, name)
    with _finishing:
        try:
            stat = path.stat()
        except OSError:
            return None
        if not path.is_file():
            return None
        row = cloud.state.get(f"gs://{bucket}/{name}")
        print_ = [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        if row is None or row["_print"] != print_:
            row = _record(cloud, bucket, name, path, _digests(path), {})
        return row


@on_start
def sweep(cloud: Cloud) -> None:
    """Remove uploads that no session can continue."""
    uploads = cloud.folder / "uploads"
    uploads.mkdir(exist_ok=True)
    (cloud.folder / "buckets").mkdir(exist_ok=True)
    for path in uploads.iterdir():
        if cloud.state.get(f"upload/{path.name}") is None:
            path.unlink()


# --- buckets


@method("storage.buckets.insert")
def insert_bucket(call: Call) -> dict:
    name = call.body.get("name", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", name) or ".." in name:
        raise ApiError(400, f"Invalid bucket name: {name!r}; expected 3-63 of [a-z0-9._-].")
    place = call.body.get("location", "US").upper()
    if not re.fullmatch(r"US|EU|ASIA|NAM4|EUR[4578]|ASIA1|[A-Z]+(-[A-Z]+)+\d+", place):
        raise ApiError(400, f"The specified location constraint is not valid: {place}.")
    moment = now()
    bucket = {
        "kind": "storage#bucket", "id": name, "storageClass": "STANDARD", "metageneration": "1",
        "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}}, "etag": "CAE=",
    } | call.body | {
        "location": place,
        "timeCreated": moment, "updated": moment,
        "projectNumber": project_number(call.query["project"]),
        "selfLink": f"{call.cloud.url}/storage/v1/b/{name}",
    }  # fmt: skip
    with _finishing:
        try:
            call.state.create("bucket", f"b/{name}", bucket, parent=call.query["project"])
        except KeyError as error:
            message = f"You already own the bucket {name}."
            raise ApiError(409, message) from error
        _folder(call.cloud, name).mkdir(parents=True, exist_ok=True)
    return bucket


@method("storage.buckets.get")
def get_bucket(call: Call) -> dict:
    return _bucket(call)


@method("storage.buckets.list")
def list_buckets(call: Call) -> dict:
    prefix = call.query.get("prefix", "")
    items = call.state.list("bucket", call.query.get("project", ""))
    return _paged(call, [b for b in items if b["name"].startswith(prefix)], "storage#buckets")


@method("storage.buckets.patch", "storage.buckets.update")
def patch_bucket(call: Call) -> dict:
    _bucket(call)
    fixed = {"name", "id", "location", "timeCreated", "kind"}
    body = {key: value for key, value in call.body.items() if key not in fixed}
    return call.state.update(f"b/{call.path['bucket']}", lambda bucket: _changed(bucket, body))


def _changed(resource: dict, change: dict) -> dict:
    """A resource after a merge patch: fields are replaced, those of maps one by one."""

    def merged(old, new):
        if not isinstance(new, dict):
            return new
        old = old if isinstance(old, dict) else {}
        both = old | {key: merged(old.get(key), value) for key, value in new.items()}
        return {key: value for key, value in both.items() if value is not None}

    count = str(int(resource["metageneration"]) + 1)
    return merged(resource, change) | {"updated": now(), "metageneration": count}


@method("storage.buckets.delete")
def delete_bucket(call: Call) -> Response:
    name = _bucket(call)["name"]
    with _finishing:
        if next(_names(call.cloud, name, ""), None):
            raise ApiError(409, "The bucket you tried to delete is not empty.", status="CONFLICT")
        shutil.rmtree(_folder(call.cloud, name), ignore_errors=True)
        call.state.delete(f"b/{name}")
        call.state.delete(f"policy/b/{name}")
    return Response(status_code=204)


@method("storage.buckets.getIamPolicy")
def get_policy(call: Call) -> dict:
    name = _bucket(call)["name"]
    resource = {"resourceId": f"projects/_/buckets/{name}"}
    return call.state.get(f"policy/b/{name}") or POLICY | resource | {"bindings": []}


@method("storage.buckets.setIamPolicy")
def set_policy(call: Call) -> dict:
    kept = get_policy(call)
    if call.body.get("etag", kept["etag"]) != kept["etag"]:
        raise ApiError(412, "The policy was changed meanwhile: its etag does not match.")
    etag = base64.b64encode(call.state.next_id().encode()).decode()
    policy = POLICY | call.body | {"etag": etag, "resourceId": kept["resourceId"]}
    return call.state.put("policy", f"policy/b/{call.path['bucket']}", policy)


@method("storage.buckets.testIamPermissions")
def test_permissions(call: Call) -> dict:
    _bucket(call)
    denied = os.environ.get("LOCAL_CLOUD_DENIED", "").split(",")
    asked = [name for name in call.query.get("permissions", []) if name not in denied]
    return {"kind": "storage#testIamPermissionsResponse", "permissions": asked}


# --- objects


@method("storage.objects.list")
def list_objects(call: Call) -> dict:
    bucket, query = _bucket(call)["name"], call.query
    prefix, delimiter = query.get("prefix", ""), query.get("delimiter", "")
    first, last = query.get("startOffset", ""), query.get("endOffset", "")
    try:
        fits = re.compile(_glob(query.get("matchGlob", "**")), re.DOTALL).fullmatch
    except re.error as error:
        raise ApiError(400, f"Invalid matchGlob: {error}.") from error
    names, prefixes = [], []
    for name in sorted(_names(call.cloud, bucket, prefix)):
        if not name.startswith(prefix) or name < first or (last and name >= last) or not fits(name):
            continue
        rest = name[len(prefix) :]
        if delimiter and delimiter in rest:
            found = prefix + rest[: rest.index(delimiter)] + delimiter
            if not prefixes or prefixes[-1] != found:
                prefixes.append(found)
        else:
            names.append(name)
    entries = sorted([(name, False) for name in names] + [(name, True) for name in prefixes])
    after = base64.urlsafe_b64decode(query.get("pageToken", "")).decode(errors="replace")
    entries = [entry for entry in entries if entry[0] > after] if after else entries
    size = int(query.get("maxResults") or 1000)
    shown, answer = entries[:size], {"kind": "storage#objects"}
    items = [describe(call.cloud, bucket, name) for name, is_prefix in shown if not is_prefix]
    if any(items):
        answer["items"] = [_shown(item) for item in items if item]
    if any(is_prefix for _, is_prefix in shown):
        answer["prefixes"] = [name for name, is_prefix in shown if is_prefix]
    if len(entries) > size:
        answer["nextPageToken"] = base64.urlsafe_b64encode(shown[-1][0].encode()).decode()
    return answer


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


@method("storage.objects.get")
def get_object(call: Call) -> dict | Response:
    bucket, name = _bucket(call)["name"], call.path["object"]
    with _finishing:
        found = _object(call, bucket, name)
        if call.query.get("alt") != "media":
            return _shown(found)
        file = open(_file(call.cloud, bucket, name), "rb")  # noqa: SIM115 - closed by the stream
    return _media(file, found, call.request.headers.get("range", ""))


@method("storage.objects.patch", "storage.objects.update")
def patch_object(call: Call) -> dict:
    bucket, name = _bucket(call)["name"], call.path["object"]
    with _finishing:
        found = _object(call, bucket, name)
        free = {"contentType", "metadata", "cacheControl", "contentDisposition", "contentLanguage"}
        if call.method_id.endswith("update"):  # what it does not name is cleared
            found = {key: value for key, value in found.items() if key not in free}
        changed = _changed(found, {k: v for k, v in call.body.items() if k in free})
        return _shown(call.state.put("object", f"gs://{bucket}/{name}", changed, parent=bucket))


@method("storage.objects.delete")
def delete_object(call: Call) -> Response:
    bucket, name = _bucket(call)["name"], call.path["object"]
    with _finishing:
        _object(call, bucket, name)
        path, top = _file(call.cloud, bucket, name), _folder(call.cloud, bucket)
        path.unlink()
        call.state.delete(f"gs://{bucket}/{name}")
        with contextlib.suppress(OSError):  # a folder that still holds something stays
            while path.parent != top:
                path = path.parent
                path.rmdir()
    return Response(status_code=204)


@method("storage.objects.rewrite", "storage.objects.copy")
def copy_object(call: Call) -> dict:
    """Both give the whole copy at once."""
    path, cloud = call.path, call.cloud
    _bucket(call, path["sourceBucket"])
    bucket = _bucket(call, path["destinationBucket"])["name"]
    source = describe(cloud, path["sourceBucket"], path["sourceObject"])
    if source is None:
        raise _missing(path["sourceBucket"], path["sourceObject"])
    part = _part(cloud, call.state.next_id())
    about = {
        "contentType": source.get("contentType"),
        "metadata": source.get("metadata", {}),
    } | call.body
    try:
        shutil.copyfile(_file(cloud, path["sourceBucket"], path["sourceObject"]), part)
        made = _shown(_finish(call, bucket, path["destinationObject"], part, about, call.query))
    finally:
        part.unlink(missing_ok=True)
    if call.method_id.endswith("copy"):
        return made
    size = made["size"]
    return {"kind": "storage#rewriteResponse", "done": True, "objectSize": size,
            "totalBytesRewritten": size, "resource": made}  # fmt: skip


@method("storage.objects.insert", streamed=True)
async def insert_object(call: Call) -> dict | Response:
    """Media, multipart and resumable uploads."""
    if call.request.method in ("PUT", "DELETE"):
        return await _continue(call)
    bucket, kind = _bucket(call)["name"], call.query.get("uploadType", "")
    if kind == "resumable":
        return await _open_session(call, bucket)
    part = _part(call.cloud, call.state.next_id())
    try:
        await _receive(call, part)
        about = {"contentType": call.request.headers.get("content-type")}
        if kind == "multipart":
            about = await run_in_threadpool(_split_multipart, part, about["contentType"] or "")
        elif kind != "media":
            raise ApiError(400, f"uploadType={kind!r}; expected media, multipart or resumable.")
        name = call.query.get("name") or about.get("name", "")
        made = await run_in_threadpool(_finish, call, bucket, name, part, about, call.query)
    finally:
        part.unlink(missing_ok=True)
    return _shown(made)


async def _open_session(call: Call, bucket: str) -> Response:
    about = _json(await calls.read_body(call.request, ABOUT_BYTES))
    name = call.query.get("name") or about.get("name", "")
    headers = call.request.headers
    about.setdefault("contentType", headers.get("x-upload-content-type"))
    _file(call.cloud, bucket, name)
    _precondition(describe(call.cloud, bucket, name), call.query)
    upload_id = call.state.next_id()
    row = {"bucket": bucket, "name": name, "about": about, "query": call.query}
    part = _part(call.cloud, upload_id)
    call.state.put("upload", f"upload/{part.name}", row)
    part.touch()
    address = f"{call.cloud.url}/upload/storage/v1/b/{bucket}/o"
    address += f"?uploadType=resumable&name={quote(name, safe='')}&upload_id={upload_id}"
    return Response(headers={"Location": address, "X-GUploader-UploadID": upload_id})


async def _continue(call: Call) -> dict | Response:
    """Take the next bytes of a resumable upload, or say how many there are."""
    part = _part(call.cloud, re.sub(r"\D", "", call.query.get("upload_id", "")) or "none")
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
        found = await run_in_threadpool(describe, call.cloud, row["bucket"], row["name"])
        if found and found["_print"][2] == row.get("inode"):
            call.state.put("upload", f"upload/{part.name}", row | {"done": _shown(found)})
            return _shown(found)
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
    made = await run_in_threadpool(_finish_session, call, part, row)
    return _shown(made)


def _finish_session(call: Call, part: Path, row: dict) -> dict:
    call.state.put("upload", f"upload/{part.name}", row | {"inode": part.stat().st_ino})
    made = _finish(call, row["bucket"], row["name"], part, row["about"], row["query"])
    call.state.put("upload", f"upload/{part.name}", row | {"done": _shown(made)})
    return made


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


def _split_multipart(part: Path, content_type: str) -> dict:
    """Leave the second part's bytes in the file and give the first part, the metadata."""
    match = re.search(r'boundary="?([^";]+)"?', content_type)
    mark = b"\r\n--" + match[1].encode() if match else b""
    with open(part, "r+b") as file:
        view = mmap.mmap(file.fileno(), 0) if mark and os.fstat(file.fileno()).st_size else b""
        head = view.find(b"\r\n\r\n") + 4
        second = view.find(mark, head)
        start = view.find(b"\r\n\r\n", second) + 4
        stop = view.rfind(mark + b"--")
        if not 4 <= head <= second < start <= stop:
            raise ApiError(400, "Malformed multipart body.")
        kind = re.search(rb"(?i)content-type: *([^\r\n]+)", view[second:start])
        about = _json(view[head:second])
        view.move(0, start, stop - start)
        view.close()
        file.truncate(stop - start)
    about.setdefault("contentType", kind[1].decode("latin-1") if kind else None)
    return about


def _json(raw: bytes) -> dict:
    try:
        about = orjson.loads(raw) if raw.strip() else {}
    except ValueError as error:
        raise ApiError(400, f"Invalid JSON payload received. {error}") from error
    if not isinstance(about, dict):
        raise ApiError(400, "Invalid JSON payload received. Root element must be a message.")
    return about


def _finish(call: Call, bucket: str, name: str, part: Path, about: dict, query: dict) -> dict:
    """Check a received file and put it in place as an object, whole or not at all."""
    path, digests = _file(call.cloud, bucket, name), _digests(part)
    said = dict(re.findall(r"(crc32c|md5)=([\w+/=]+)", call.request.headers.get("x-goog-hash", "")))
    wanted = {"crc32c": about.get("crc32c") or said.get("crc32c"),
              "md5Hash": about.get("md5Hash") or said.get("md5")}  # fmt: skip
    for key, value in wanted.items():
        if value and value != digests[key]:
            message = f"Provided {key} {value!r} doesn't match calculated {digests[key]!r}."
            raise ApiError(400, message)
    with _finishing:
        _bucket(call, bucket)
        _precondition(describe(call.cloud, bucket, name), query)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, path)
        except OSError as error:
            raise ApiError(
                400, f"The local cloud keeps objects as files and can't store {name!r} beside what "
                f"is there ({error.strerror}).",
            ) from error  # fmt: skip
        return _record(call.cloud, bucket, name, path, digests, about)


def _record(cloud: Cloud, bucket: str, name: str, path: Path, digests: dict, about: dict) -> dict:
    stat, moment, generation = path.stat(), now(), str(time.time_ns() // 1000)
    before = cloud.state.get(f"gs://{bucket}/{name}")
    if before and int(before["generation"]) >= int(generation):
        generation = str(int(before["generation"]) + 1)
    place = f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}"
    free = ("metadata", "cacheControl", "contentDisposition", "contentEncoding", "contentLanguage")
    row = {
        "kind": "storage#object", "id": f"{bucket}/{name}/{generation}", "name": name,
        "bucket": bucket, "generation": generation, "metageneration": "1",
        "contentType": about.get("contentType") or "application/octet-stream",
        "storageClass": "STANDARD", "size": str(stat.st_size), **digests,
        "etag": base64.b64encode(generation.encode()).decode(),
        "timeCreated": moment, "updated": moment, "timeStorageClassUpdated": moment,
        "selfLink": f"{cloud.url}{place}",
        "mediaLink": f"{cloud.url}/download{place}?alt=media",
        "_print": [stat.st_size, stat.st_mtime_ns, stat.st_ino],
    } | {key: about[key] for key in free if about.get(key)}  # fmt: skip
    return cloud.state.put("object", f"gs://{bucket}/{name}", row, parent=bucket)


def _media(file, found: dict, wanted: str) -> Response:
    size = int(found["size"])
    start, stop, status = 0, size, 200
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", wanted)
    if match and (match[1] or match[2]):
        start = int(match[1]) if match[1] else max(0, size - int(match[2]))
        stop = min(int(match[2]) + 1, size) if match[1] and match[2] else size
        status = 206
        if start >= size or stop <= start:
            file.close()
            problem = ApiError(416, "The requested range cannot be satisfied.")
            return Response(json.dumps(problem.body()), 416, {"Content-Range": f"bytes */{size}"})
    headers = {
        "Content-Length": str(stop - start), "Accept-Ranges": "bytes", "ETag": found["etag"],
        "X-Goog-Generation": found["generation"], "X-Goog-Stored-Content-Length": str(size),
        "X-Goog-Hash": f"crc32c={found['crc32c']},md5={found['md5Hash']}",
    }  # fmt: skip
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"

    def chunks():
        with file:
            file.seek(start)
            left = stop - start
            while left > 0 and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk

    kind = found.get("contentType", "")  # not as media_type, which would add a charset
    kind = kind if kind.isascii() and kind.isprintable() else ""
    headers["Content-Type"] = kind or "application/octet-stream"
    return StreamingResponse(chunks(), status, headers)


def _bucket(call: Call, name: str = "") -> dict:
    name = name or call.path["bucket"]
    bucket = call.state.get(f"b/{name}")
    if bucket is None:
        raise ApiError(404, f"The specified bucket does not exist: {name}.")
    return bucket


def _object(call: Call, bucket: str, name: str) -> dict:
    found = describe(call.cloud, bucket, name)
    asked = call.query.get("generation")
    if found is None or (asked and asked != found["generation"]):
        if call.query.get("ifGenerationMatch") not in (None, "0"):
            _precondition(found, call.query)
        raise _missing(bucket, name)
    _precondition(found, call.query)
    return found


def _missing(bucket: str, name: str) -> ApiError:
    return ApiError(404, f"No such object: {bucket}/{name}")


def _precondition(found: dict | None, query: dict) -> None:
    generation = found["generation"] if found else "0"
    metageneration = found["metageneration"] if found else "0"
    for name, actual, equal in [
        ("ifGenerationMatch", generation, True),
        ("ifGenerationNotMatch", generation, False),
        ("ifMetagenerationMatch", metageneration, True),
        ("ifMetagenerationNotMatch", metageneration, False),
    ]:
        if name in query and (query[name] == actual) != equal:
            message = "At least one of the pre-conditions you specified did not hold."
            raise ApiError(412, f"{message} ({name}={query[name]}, found {actual})")


def _digests(path: Path) -> dict[str, str]:
    crc32c, md5 = google_crc32c.Checksum(), hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            crc32c.update(chunk)
            md5.update(chunk)
    return {
        "crc32c": base64.b64encode(crc32c.digest()).decode(),
        "md5Hash": base64.b64encode(md5.digest()).decode(),
    }


def _folder(cloud: Cloud, bucket: str) -> Path:
    return cloud.folder / "buckets" / bucket


def _file(cloud: Cloud, bucket: str, name: str) -> Path:
    """The file behind an object's name; names a file system can't hold are refused."""
    parts = name.split("/")
    bad = any(
        p in ("", ".", "..") or len(p.encode()) > 240 or re.search(r"[\x00\r\n]", p) for p in parts
    )
    if not name or bad or len(name.encode()) > 1024:
        raise ApiError(
            400,
            f"Object name {name[:80]!r} can't be kept as a file by the local cloud: parts between "
            "slashes are 1-240 bytes, not . or .., 1,024 bytes in all.",
        )
    return _folder(cloud, bucket).joinpath(*parts)


def _names(cloud: Cloud, bucket: str, prefix: str):
    """Names of all objects below the folder that a prefix points into."""
    top = _folder(cloud, bucket)
    within = prefix.rpartition("/")[0]
    if any(part in ("", ".", "..") or "\x00" in part for part in within.split("/") if within):
        return
    for folder, _, files in os.walk(top / within):
        place = os.path.relpath(folder, top)
        for file in files:
            yield file if place == "." else f"{place}/{file}".replace(os.sep, "/")


def _part(cloud: Cloud, upload_id: str) -> Path:
    return cloud.folder / "uploads" / upload_id


def _paged(call: Call, items: list, kind: str) -> dict:
    token = call.query.get("pageToken") or "0"
    if not token.isdecimal():
        raise ApiError(400, "Invalid pageToken.")
    start, size = int(token), int(call.query.get("maxResults") or 1000)
    answer = {"kind": kind, "items": items[start : start + size]}
    if start + size < len(items):
        answer["nextPageToken"] = str(start + size)
    return answer


def _shown(row: dict) -> dict:
    return {key: value for key, value in row.items() if not key.startswith("_")}
