"""Objects of Cloud Storage as files: where each is, its resource, versions, holds.

The file is the truth; SQLite keeps what a file can't hold (generation, checksums, metadata) beside
its size, time and inode. Where they differ (another program wrote the file) it is looked at anew.
What can't be a plain file is kept apart, under a number in DIR/apart: earlier versions, a folder's
placeholder (`a/`), an object whose name is a folder's, too.
"""

import base64
import contextlib
import datetime
import hashlib
import itertools
import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote

import google_crc32c

from helpers.emulator.front.calls import ApiError, Call, Cloud, now, on_start
from helpers.emulator.services import buckets, conditions
from helpers.emulator.services.buckets import LOCK, file_of, folder_of

CHUNK_BYTES = 1 << 20
OCTETS = "application/octet-stream"
# What a client may set and change; the rest of its fields are set once, or by the service.
FREE = (
    "metadata", "contentType", "cacheControl", "contentDisposition", "contentEncoding",
    "contentLanguage", "customTime", "eventBasedHold", "temporaryHold",
)  # fmt: skip
OWN = ("_print", "_apart", "_released")  # what a row has beside the resource
_parts = itertools.count()


@on_start
def sweep(cloud: Cloud) -> None:
    """Remove uploads that no session can continue, and contents that belong to no object."""
    for name in ("uploads", "apart", "buckets"):
        (cloud.folder / name).mkdir(exist_ok=True)
    for path in (cloud.folder / "uploads").iterdir():
        if cloud.state.get(f"upload/{path.name}") is None:
            path.unlink()
    kept = {row["_apart"] for kind in ("apart", "version") for row in cloud.state.list(kind)}
    for path in (cloud.folder / "apart").iterdir():
        if path.name not in kept:
            path.unlink()


def describe(cloud: Cloud, bucket: str, name: str, row: dict | None = None) -> dict | None:
    """The live object of that name, or None; `row` is what is known of it, if it was asked for."""
    path = file_of(cloud, bucket, name)
    with LOCK:
        row = row or cloud.state.get(f"gs://{bucket}/{name}")
        try:
            found = os.stat(path)
        except OSError:
            found = None
        if found is None or not stat.S_ISREG(found.st_mode):
            return row if row and "_apart" in row else None
        if row is None or row["_print"] != [found.st_size, found.st_mtime_ns, found.st_ino]:
            known = cloud.state.get(f"b/{bucket}") or {"name": bucket}
            about = {"contentType": OCTETS}
            row = record(cloud, known, name, path, file_digests(path), about, before=row)
        elif "_apart" in row:  # killed before it was moved there
            row = save(cloud, {key: value for key, value in row.items() if key != "_apart"})
        return row


def find(call: Call, bucket: str, name: str, generation: str | None) -> dict | None:
    """An object, or the version of it with that generation."""
    live = describe(call.cloud, bucket, name)
    if generation is None or (live and live["generation"] == generation):
        return live
    version = call.state.get(_version_key(bucket, name, generation))
    return version if version and place_of(call.cloud, version).exists() else None


def missing(bucket: str, name: str) -> ApiError:
    return ApiError(404, f"No such object: {bucket}/{name}")


def place_of(cloud: Cloud, row: dict) -> Path:
    """The file with an object's content."""
    if "_apart" in row:
        return cloud.folder / "apart" / row["_apart"]
    return file_of(cloud, row["bucket"], row["name"])


def put(
    call: Call, bucket_name: str, name: str, part: Path, sums: dict, about: dict, query: dict
) -> dict:
    """Put a file in place as the live object, whole or not at all, if the query's and headers'
    conditions hold.

    Args:
        part: the file, which is moved.
        sums: its checksums, see `digests`.
        about: what the client says of the object.
    """
    cloud = call.cloud
    with LOCK:
        live = describe(cloud, bucket_name, name)
        conditions.check(live, query, call.request.headers)
        bucket = buckets.find(call, bucket_name)
        if live:
            keep = bucket.get("versioning", {}).get("enabled", False)
            _protect(bucket, live, archiving=keep)
            if keep:
                _keep_version(cloud, live)
        number = _put_in_place(cloud, bucket_name, name, part)
        path = cloud.folder / "apart" / number if number else file_of(cloud, bucket_name, name)
        made = record(cloud, bucket, name, path, sums, about, apart=number, before=live)
        _drop_apart(cloud, live)
        return made


def remove(cloud: Cloud, bucket: dict, row: dict, *, for_good: bool) -> None:
    """Take an object away; the lock is held. A live one stays as a version where the bucket has
    versioning, unless it is `for_good`."""
    keep = bucket.get("versioning", {}).get("enabled") and not for_good
    _protect(bucket, row, archiving=keep)
    if "timeDeleted" in row:
        cloud.state.delete(_version_key(row["bucket"], row["name"], row["generation"]))
        _drop_apart(cloud, row)
        return
    if keep:
        _keep_version(cloud, row)
    else:  # what a kill may have left: a version that is the live object
        cloud.state.delete(_version_key(row["bucket"], row["name"], row["generation"]))
    path, top = file_of(cloud, row["bucket"], row["name"]), folder_of(cloud, row["bucket"])
    if "_apart" not in row:
        path.unlink()
    cloud.state.delete(f"gs://{row['bucket']}/{row['name']}")
    _drop_apart(cloud, row)
    folder = path if row["name"].endswith("/") else path.parent
    with contextlib.suppress(OSError):  # a folder that still holds something stays
        while folder != top:
            place = folder.relative_to(top).as_posix()
            if cloud.state.get(f"gs://{row['bucket']}/{place}/"):
                break  # somebody made this folder as such
            folder.rmdir()
            folder = folder.parent


def save(cloud: Cloud, row: dict) -> dict:
    """Keep an object's resource."""
    key, kind = f"gs://{row['bucket']}/{row['name']}", "apart" if "_apart" in row else "object"
    if "timeDeleted" in row:
        key, kind = _version_key(row["bucket"], row["name"], row["generation"]), "version"
    return cloud.state.put(kind, key, row, parent=row["bucket"])


def record(
    cloud: Cloud, bucket: dict, name: str, path: Path, sums: dict, about: dict, *,
    apart: str = "", before: dict | None = None,
) -> dict:  # fmt: skip
    """Make and keep the resource of a new live object whose content is in `path`."""
    found, moment, folder = path.stat(), now(), bucket["name"]
    generation = buckets.new_generation(before["generation"] if before else "0")
    place = f"/storage/v1/b/{folder}/o/{quote(name, safe='')}"
    row = {
        "kind": "storage#object", "id": f"{folder}/{name}/{generation}", "name": name,
        "bucket": folder, "generation": generation, "metageneration": "1",
        "storageClass": about.get("storageClass") or bucket.get("storageClass", "STANDARD"),
        "size": str(found.st_size), **sums, "etag": buckets.etag(generation, "1"),
        "timeCreated": moment, "updated": moment, "timeStorageClassUpdated": moment,
        "timeFinalized": moment,
        "selfLink": f"{cloud.url}{place}",
        "mediaLink": f"{cloud.url}/download{place}?generation={generation}&alt=media",
        "_print": [found.st_size, found.st_mtime_ns, found.st_ino],
    } | settings(about)  # fmt: skip
    if bucket.get("defaultEventBasedHold"):
        row = {"eventBasedHold": True} | row
    if apart:
        row["_apart"] = apart
    return save(cloud, row)


def settings(about: dict) -> dict:
    """What a client sets of a new object."""
    made = {key: about[key] for key in FREE if about.get(key) not in (None, "", {})}
    if "customTime" in made:
        try:
            moment = datetime.datetime.fromisoformat(made["customTime"].upper())
        except ValueError as error:
            raise ApiError(400, f"Invalid customTime: {error}.") from error
        made["customTime"] = buckets.stamp(moment.astimezone(datetime.UTC))
    return made


def shown(row: dict, bucket: dict) -> dict:
    """A resource as clients see it."""
    made = row.copy()
    for key in OWN:
        made.pop(key, None)
    until = _retained_until(bucket, row)
    return made | {"retentionExpirationTime": until} if until else made


def part_of(cloud: Cloud, upload_id: str) -> Path:
    """Where the bytes of a resumable upload arrive."""
    return cloud.folder / "uploads" / upload_id


def new_part(cloud: Cloud) -> Path:
    """A file for what becomes an object within this call."""
    return cloud.folder / "uploads" / f"call{next(_parts)}"


def digests(chunks: Iterable[bytes]) -> dict[str, str]:
    """Checksums of a content as an object's resource carries them."""
    crc32c, md5 = google_crc32c.Checksum(), hashlib.md5(usedforsecurity=False)
    for chunk in chunks:
        crc32c.update(chunk)
        md5.update(chunk)
    return {
        "crc32c": base64.b64encode(crc32c.digest()).decode(),
        "md5Hash": base64.b64encode(md5.digest()).decode(),
    }


def file_digests(path: Path) -> dict[str, str]:
    with open(path, "rb") as file:
        return digests(iter(lambda: file.read(CHUNK_BYTES), b""))


def _version_key(bucket: str, name: str, generation: str) -> str:
    return f"gs://{bucket}/{name}\n{generation}"  # no name has a line end


def _keep_version(cloud: Cloud, live: dict) -> None:
    """Keep the live object's content and resource as a version; the object itself stays, too."""
    if "_apart" not in live:
        number, path = cloud.state.next_id(), place_of(cloud, live)
        try:
            os.link(path, cloud.folder / "apart" / number)
        except OSError:  # a file system without links
            shutil.copyfile(path, cloud.folder / "apart" / number)
        live = live | {"_apart": number}
    save(cloud, live | {"timeDeleted": now()})


def _put_in_place(cloud: Cloud, bucket: str, name: str, part: Path) -> str:
    """Move a file to where the object of that name is; the number of what is kept apart."""
    path = file_of(cloud, bucket, name)
    if name.endswith("/"):
        _make_folder(cloud, bucket, path)
    else:
        try:
            os.replace(part, path)
            return ""
        except (FileNotFoundError, NotADirectoryError):
            _make_folder(cloud, bucket, path.parent)
            os.replace(part, path)
            return ""
        except OSError:
            if not path.is_dir():
                raise
    number = cloud.state.next_id()
    os.replace(part, cloud.folder / "apart" / number)
    return number


def _make_folder(cloud: Cloud, bucket: str, folder: Path) -> None:
    """Make a folder; an object of its name, or of that of a folder above, is moved apart."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        path = next(path for path in (folder, *folder.parents) if path.is_file())
        name = path.relative_to(folder_of(cloud, bucket)).as_posix()
        number, row = cloud.state.next_id(), describe(cloud, bucket, name)
        save(cloud, row | {"_apart": number})
        os.replace(path, cloud.folder / "apart" / number)
        folder.mkdir(parents=True, exist_ok=True)


def _drop_apart(cloud: Cloud, row: dict | None) -> None:
    """Remove the content that was kept apart, unless a version has it."""
    if row and "_apart" in row:
        version = cloud.state.get(_version_key(row["bucket"], row["name"], row["generation"]))
        if version is None or version["_apart"] != row["_apart"]:
            (cloud.folder / "apart" / row["_apart"]).unlink(missing_ok=True)


def _protect(bucket: dict, row: dict, *, archiving: bool = False) -> None:
    """Refuse to remove or replace what is held or retained; retained is also what becomes a
    version, which a hold forbids [D: storage/docs/object-holds, object-lock]."""
    what = f"Object '{row['bucket']}/{row['name']}'"
    for hold, said in (("temporaryHold", "Temporary"), ("eventBasedHold", "Event-Based")):
        if row.get(hold):
            raise ApiError(
                403, f"{what} is under active {said} hold and cannot be deleted, overwritten or "
                "archived until hold is removed.", reason="retentionPolicyNotMet",
            )  # fmt: skip
    until = _retained_until(bucket, row)
    if until and until > now() and not archiving:
        raise ApiError(
            403, f"{what} is subject to bucket's retention policy and cannot be deleted or "
            f"overwritten until {until}.", reason="retentionPolicyNotMet",
        )  # fmt: skip


def _retained_until(bucket: dict, row: dict) -> str:
    period_s = int(bucket.get("retentionPolicy", {}).get("retentionPeriod", 0))
    if not period_s or row.get("eventBasedHold"):
        return ""
    since = datetime.datetime.fromisoformat(row.get("_released") or row["timeCreated"])
    return buckets.stamp(since + datetime.timedelta(seconds=period_s))
