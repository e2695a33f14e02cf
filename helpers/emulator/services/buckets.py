"""Buckets of Cloud Storage as folders: `gs://BUCKET/a/b` is DIR/buckets/BUCKET/a/b."""

import base64
import datetime
import functools
import itertools
import os
import re
import shutil
import threading
import time
from pathlib import Path

from starlette.responses import Response

from helpers.emulator.front import rules
from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    now,
    on_start,
    part_of,
    project_number,
    refused,
)
from helpers.emulator.services import conditions
from helpers.emulator.services.storage_fields import serve

LOCK = threading.RLock()  # one object or bucket is put in place, read or removed at a time
POLICY = {"kind": "storage#policy", "version": 1, "etag": "CAE="}
PUBLIC = {"allUsers", "allAuthenticatedUsers"}
DUAL = {"ASIA1", "EUR4", "EUR5", "EUR7", "EUR8", "NAM4"}
MULTI = {"ASIA", "EU", "US"}
NO_FILE = re.compile(r"(^|/)\.{0,2}(/|$)|[\x00\r\n]")  # in a name
PAGE = 1000
SCANS = 16  # of folders, kept for the next page of a list
LONGEST_RETENTION_S = 3_155_760_000  # a hundred years
_scans: dict[Path, "Scan"] = {}


def path_of(cloud: Cloud, uri: str) -> Path:
    """The plain file or folder behind a gs:// address."""
    bucket, _, name = uri.removeprefix("gs://").partition("/")
    if not uri.startswith("gs://") or not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}", bucket):
        raise ApiError(400, f"{uri!r} is not a Cloud Storage address; expected gs://BUCKET/NAME.")
    name = name.strip("/")
    return file_of(cloud, bucket, name) if name else folder_of(cloud, bucket)


def folder_of(cloud: Cloud, bucket: str) -> Path:
    return cloud.folder / "buckets" / bucket


def file_of(cloud: Cloud, bucket: str, name: str) -> Path:
    """The file behind an object's name; names a file system can't hold are refused."""
    return _file(cloud.folder, bucket, name)


@functools.lru_cache(1000)  # a call asks for the same one several times
def _file(state: Path, bucket: str, name: str) -> Path:
    size_bytes = len(name.encode())
    long = size_bytes > 240 and any(len(part.encode()) > 240 for part in name.split("/"))
    if not name or long or size_bytes > 1024 or NO_FILE.search(name.removesuffix("/")):
        raise ApiError(
            400,
            f"Object name {name[:80]!r} can't be kept as a file by the local cloud: parts between "
            "slashes are 1-240 bytes, not . or .., 1,024 bytes in all.",
        )
    return Path(f"{state}/buckets/{bucket}/{name}")


def files_in(cloud: Cloud, bucket: str, prefix: str = "") -> list[str]:
    """Names of all plain files below the folder that a prefix points into, sorted."""
    within = prefix.rpartition("/")[0]
    if within and NO_FILE.search(within):
        return []
    top = cloud.folder / "buckets" / bucket / within
    scan = _scans.pop(top, None)
    if scan is None or not scan.holds():
        scan = Scan(top, f"{within}/" if within else "")
    _scans[top] = scan
    while len(_scans) > SCANS:
        _scans.pop(next(iter(_scans)), None)
    return scan.names


class Scan:
    """The names of the files below a folder, good until one of its folders changes."""

    def __init__(self, top: Path, prefix: str):
        self.names: list[str] = []
        self.changed_ns: dict[str, int] = {}
        self.start_ns = time.time_ns()
        self._look(str(top), prefix)
        self.names.sort()

    def holds(self) -> bool:
        """A change within one tick of the file system's clock could not be seen: a folder that
        was changed just before is looked at again."""
        try:
            return bool(self.changed_ns) and all(  # empty: the folder was not there yet
                os.stat(folder).st_mtime_ns == changed_ns
                and self.start_ns - changed_ns > (2e8 if changed_ns % 10**9 else 4e9)
                for folder, changed_ns in self.changed_ns.items()
            )
        except OSError:
            return False

    def _look(self, folder: str, prefix: str) -> None:
        try:
            self.changed_ns[folder] = os.stat(folder).st_mtime_ns
            entries = list(os.scandir(folder))
        except OSError:  # gone, or no folder
            return
        for entry in entries:
            if not entry.is_dir():
                self.names.append(prefix + entry.name)
            elif not entry.is_symlink():
                self._look(entry.path, f"{prefix}{entry.name}/")


def find(call: Call, name: str = "") -> dict:
    """A bucket's resource; without a name, that of the call's path."""
    name = name or call.path["bucket"]
    bucket = call.state.get(f"b/{name}")
    if bucket is None:
        raise ApiError(404, f"The specified bucket does not exist: {name}.")
    # An earlier version of the local cloud wrote fewer fields.
    return bucket if "locationType" in bucket else _completed(bucket, bucket, {})


def etag(*numbers: int | str) -> str:
    """Of a resource with these numbers of its generation and metageneration, in Google's form: a
    protocol buffer's bytes."""
    raw = bytearray()
    for field, number in enumerate(numbers, 1):
        raw.append(field << 3)
        number = int(number)
        while number > 127:
            raw.append(number & 127 | 128)
            number >>= 7
        raw.append(number)
    return base64.b64encode(raw).decode()


def changed(resource: dict, change: dict) -> dict:
    """A resource after a merge patch: fields are replaced, those of maps one by one."""

    def merged(old, new):
        if not isinstance(new, dict):
            return new
        old = old if isinstance(old, dict) else {}
        both = old | {key: merged(old.get(key), value) for key, value in new.items()}
        return {key: value for key, value in both.items() if value is not None}

    count = str(int(resource["metageneration"]) + 1)
    return merged(resource, change) | {"updated": now(), "metageneration": count}


# --- the bucket itself


@on_start
def complete_older(cloud: Cloud) -> None:
    """Give a bucket that an older version of the local cloud kept what has come since."""
    for bucket in cloud.state.list("bucket"):
        if "generation" not in bucket:
            whole = _completed(bucket | {"generation": new_generation()}, bucket, {})
            cloud.state.update(f"b/{bucket['name']}", lambda _, whole=whole: whole)


@serve("buckets.insert")
def insert_bucket(call: Call) -> dict:
    name = call.body.get("name", "")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]", name) or ".." in name:
        raise ApiError(400, f"Invalid bucket name: {name!r}; expected 3-63 of [a-z0-9._-].")
    if re.search(r"^goog|google|^\d+\.\d+\.\d+\.\d+$", name):  # [D: storage/docs/buckets#naming]
        raise ApiError(400, f"Invalid bucket name: {name!r}; goog, google or an IP address in it.")
    place = call.body.get("location", "US").upper()
    if not re.fullmatch(r"[A-Z]+(-[A-Z]+)+\d+", place) and place not in DUAL | MULTI:
        raise ApiError(400, f"The specified location constraint is not valid: {place}.")
    if not call.query.get("project"):
        raise ApiError(400, "Required parameter: project")
    moment = now()
    fixed = {
        "kind": "storage#bucket", "id": name, "metageneration": "1", "location": place,
        "timeCreated": moment, "updated": moment, "generation": new_generation(),
        "projectNumber": project_number(call.query["project"]),
        "selfLink": f"{call.cloud.url}/storage/v1/b/{name}",
    }  # fmt: skip
    bucket = _completed(call.body | fixed, {}, call.body)
    with LOCK:
        try:
            call.state.create("bucket", f"b/{name}", bucket, parent=call.query["project"])
        except KeyError as error:
            message = f"You already own the bucket {name}."
            raise ApiError(409, message) from error
        folder_of(call.cloud, name).mkdir(parents=True, exist_ok=True)
    return bucket


@serve("buckets.get")
def get_bucket(call: Call) -> dict:
    bucket = find(call)
    conditions.check(bucket, call.query, call.request.headers, reading=True)
    return bucket


@serve("buckets.list")
def list_buckets(call: Call) -> dict:
    prefix = call.query.get("prefix", "")
    items = call.state.list("bucket", call.query.get("project", ""))
    items = [bucket for bucket in items if bucket["name"].startswith(prefix)]
    shown, token = part_of(call, items, page_size(call))
    answer = {"kind": "storage#buckets", "items": shown}
    return answer | ({"nextPageToken": token} if token else {})


def page_size(call: Call) -> int:
    """Of a list: at most 1,000 [P]."""
    return min(int(call.query.get("maxResults") or PAGE), PAGE)


@serve("buckets.patch", "buckets.update")
def change_bucket(call: Call) -> dict:
    """`update` replaces: what it does not name goes back to its default."""
    find(call)
    fixed = ("name", "location", "customPlacementConfig")
    body = {key: value for key, value in call.body.items() if key not in fixed}
    stays = {*fixed, "id", "kind", "generation", "timeCreated", "projectNumber", "selfLink"}

    def change(bucket: dict) -> dict:
        conditions.check(bucket, call.query, call.request.headers)
        before = bucket
        for key in fixed:
            asked = call.body.get(key, before.get(key))
            if asked != before.get(key) and str(asked).upper() != before.get(key):
                raise ApiError(400, f"The {key} of a bucket can't be changed.")
        if call.method_id.endswith("update"):
            bucket = {k: v for k, v in bucket.items() if k in stays | {"metageneration"}}
        return _completed(changed(bucket, body), before, body)

    with LOCK:
        return call.state.update(f"b/{call.path['bucket']}", change)


@serve("buckets.lockRetentionPolicy")
def lock_retention(call: Call) -> dict:
    find(call)
    if "ifMetagenerationMatch" not in call.query:
        raise ApiError(400, "Required parameter: ifMetagenerationMatch.")

    def change(bucket: dict) -> dict:
        conditions.check(bucket, call.query, call.request.headers)
        policy = bucket.get("retentionPolicy")
        if policy is None:
            raise refused("The bucket has no retention policy to lock.")
        locked = changed(bucket, {}) | {"retentionPolicy": policy | {"isLocked": True}}
        return _completed(locked, locked, {})

    with LOCK:
        return call.state.update(f"b/{call.path['bucket']}", change)


@serve("buckets.delete")
def delete_bucket(call: Call) -> Response:
    with LOCK:
        bucket = find(call)
        conditions.check(bucket, call.query, call.request.headers)
        name = bucket["name"]
        apart = (call.state.names(kind, f"gs://{name}/") for kind in ("apart", "version"))
        if next(itertools.chain(files_in(call.cloud, name), *apart), None):
            raise ApiError(409, "The bucket you tried to delete is not empty.", status="CONFLICT")
        shutil.rmtree(folder_of(call.cloud, name), ignore_errors=True)
        call.state.delete(f"b/{name}")
        call.state.delete(f"policy/b/{name}")
    return Response(status_code=204)


def new_generation(before: str = "0") -> str:
    """This moment in microseconds, or more: later than what was `before`."""
    return str(max(time.time_ns() // 1000, int(before) + 1))


def _completed(bucket: dict, before: dict, body: dict) -> dict:
    """A bucket with the defaults and what follows from its settings.

    Args:
        bucket: as the body leaves it.
        before: as it was; {} for a new one.
        body: what was asked for.
    """
    for _, message in rules.display_name_and_labels({"labels": bucket.get("labels") or {}}, {}):
        raise ApiError(400, f"Invalid labels: {message}")
    place = bucket["location"]
    dual = place in DUAL or bucket.get("customPlacementConfig")
    kind = "dual-region" if dual else "multi-region" if place in MULTI else "region"
    policy = _retention(bucket.get("retentionPolicy"), before.get("retentionPolicy"))
    autoclass = _autoclass(bucket.get("autoclass"), before.get("autoclass", {}))
    parts = {"retentionPolicy": policy, "autoclass": autoclass}
    copies = {} if kind == "region" else {"rpo": "DEFAULT"}
    made = (
        copies
        | {key: value for key, value in bucket.items() if key not in parts}
        | {
            "locationType": kind,
            "storageClass": bucket.get("storageClass") or "STANDARD",
            "iamConfiguration": _access(bucket, before, body.get("iamConfiguration") or {}),
            "softDeletePolicy": {"retentionDurationSeconds": "0"},
            "etag": etag(bucket["metageneration"]),
        }
    )
    return made | {key: value for key, value in parts.items() if value}


def _autoclass(asked: dict | None, before: dict) -> dict:
    """Autoclass, with the times of its last changes."""
    made = dict(asked or {})
    if made.get("enabled"):
        made.setdefault("terminalStorageClass", "NEARLINE")
    for name, time_name in (("enabled", "toggleTime"), ("terminalStorageClass",
                            "terminalStorageClassUpdateTime")):  # fmt: skip
        if name in made:
            changed_now = made[name] != before.get(name)
            made[time_name] = now() if changed_now else before[time_name]
    return made


def _access(bucket: dict, before: dict, asked: dict) -> dict:
    """Both names of uniform access; of a request, the one that differs from what is counts."""
    uniform, older = "uniformBucketLevelAccess", "bucketPolicyOnly"
    access, was = bucket.get("iamConfiguration") or {}, before.get("iamConfiguration", {})
    now_enabled = bool(access) and was.get(uniform, {}).get("enabled", False)
    wanted = {(asked.get(name) or {}).get("enabled", now_enabled) for name in (uniform, older)}
    enabled = next(iter(wanted - {now_enabled}), now_enabled)
    state = {"enabled": enabled}
    if enabled:
        later = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=90)
        state["lockedTime"] = was.get(uniform, {}).get("lockedTime") or stamp(later)
    public = access.get("publicAccessPrevention") or "inherited"
    public = "inherited" if public == "unspecified" else public
    return {uniform: state, older: state, "publicAccessPrevention": public}


def _retention(policy: dict | None, before: dict | None) -> dict | None:
    """A retention policy; what is locked is neither removed nor shortened."""
    period_s = int((policy or {}).get("retentionPeriod") or 0)
    was_s, locked = int((before or {}).get("retentionPeriod", 0)), (before or {}).get("isLocked")
    if locked and period_s < was_s:
        raise ApiError(403, "A locked retention policy can't be removed or shortened.")
    if not 0 <= period_s < LONGEST_RETENTION_S:
        raise ApiError(400, f"retentionPeriod {period_s}; expected 1 to {LONGEST_RETENTION_S} s.")
    if not period_s:
        return None
    since = before["effectiveTime"] if before and was_s == period_s else now()
    made = {"retentionPeriod": str(period_s), "effectiveTime": since}
    return made | ({"isLocked": True} if locked or (policy or {}).get("isLocked") else {})


def stamp(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


# --- who may do what


@serve("buckets.getIamPolicy")
def get_policy(call: Call) -> dict:
    policy = _policy(call)
    asked = int(call.query.get("optionsRequestedPolicyVersion") or 1)
    if asked < policy["version"] and any("condition" in b for b in policy["bindings"]):
        raise ApiError(
            412, f"Requested policy version ({asked}) is less than that of the existing policy "
            f"({policy['version']}), which has conditions.",
        )  # fmt: skip
    return policy


@serve("buckets.setIamPolicy")
def set_policy(call: Call) -> dict:
    with LOCK:
        kept, bucket = _policy(call), find(call)
        if call.body.get("etag", kept["etag"]) != kept["etag"]:
            raise ApiError(412, "The policy was changed meanwhile: its etag does not match.")
        access, version = bucket["iamConfiguration"], call.body.get("version") or 1
        bindings = call.body.get("bindings", [])
        rules.check_bindings(bindings)
        if version not in (1, 3):
            raise ApiError(400, f"Invalid policy version {version}; expected 1 or 3.")
        if any("condition" in binding for binding in bindings):
            if version != 3:
                raise ApiError(400, "A policy with conditions must be of version 3.")
            if not access["uniformBucketLevelAccess"]["enabled"]:
                raise ApiError(400, "Conditions need uniform bucket-level access to be enabled.")
        members = {member for binding in bindings for member in binding.get("members", [])}
        if access["publicAccessPrevention"] == "enforced" and members & PUBLIC:
            raise ApiError(
                412, f"The member bindings {' and '.join(sorted(members & PUBLIC))} are not "
                "allowed since public access prevention is enforced.",
            )  # fmt: skip
        made = {"bindings": bindings, "version": version, "etag": etag(call.state.next_id())}
        policy = kept | made
        return call.state.put("policy", f"policy/b/{bucket['name']}", policy)


@serve("buckets.testIamPermissions")
def test_permissions(call: Call) -> dict:
    find(call)
    denied = os.environ.get("LOCAL_CLOUD_DENIED", "").split(",")
    asked = [name for name in call.query.get("permissions", []) if name not in denied]
    return {"kind": "storage#testIamPermissionsResponse", "permissions": asked}


def _policy(call: Call) -> dict:
    name = find(call)["name"]
    new = POLICY | {"resourceId": f"projects/_/buckets/{name}", "bindings": []}
    return call.state.get(f"policy/b/{name}") or new
