"""Objects of Cloud Storage made of others: copied, rewritten, composed."""

import shutil
from pathlib import Path

from helpers.emulator.front.calls import ApiError, Call
from helpers.emulator.services import blobs, buckets, conditions
from helpers.emulator.services.buckets import LOCK
from helpers.emulator.services.storage_fields import serve, sift

COPIED = tuple(key for key in blobs.FREE if not key.endswith("Hold"))
SOURCES = 32  # that one call composes


@serve("objects.rewrite", "objects.copy")
def copy_object(call: Call) -> dict:
    """Both give the whole copy at once. Settings are those in the body, all of them; without a
    body, the source's."""
    path, query = call.path, call.query
    origin, bucket = path["sourceBucket"], buckets.find(call, path["destinationBucket"])
    buckets.find(call, origin)
    part = blobs.new_part(call.cloud)
    try:
        with LOCK:
            source = blobs.find(call, origin, path["sourceObject"], query.get("sourceGeneration"))
            if source is None:
                raise blobs.missing(origin, path["sourceObject"])
            conditions.check(source, query, prefix="ifSource")
            shutil.copyfile(blobs.place_of(call.cloud, source), part)
        about = call.body or {key: source[key] for key in COPIED if key in source}
        sums = {key: source[key] for key in ("crc32c", "md5Hash") if key in source}
        made = _put(call, bucket["name"], path["destinationObject"], part, sums, about)
    finally:
        part.unlink(missing_ok=True)
    if call.method_id.endswith("copy"):
        return made
    size = made["size"]
    return {"kind": "storage#rewriteResponse", "done": True, "objectSize": size,
            "totalBytesRewritten": size, "resource": made}  # fmt: skip


@serve("objects.compose")
def compose_object(call: Call) -> dict:
    """One object of the contents of up to 32 of the same bucket, one after the other."""
    name, asked = call.path["destinationObject"], call.body.get("sourceObjects", [])
    bucket = buckets.find(call, call.path["destinationBucket"])
    if not 1 <= len(asked) <= SOURCES:
        raise ApiError(
            400, f"The number of source components provided is {len(asked)}; expected 1 to 32."
        )
    about = sift("Object", call.body.get("destination", {}))
    part = blobs.new_part(call.cloud)
    try:
        with LOCK:
            sources = [_source(call, bucket["name"], one) for one in asked]
            with open(part, "wb") as file:
                for source in sources:
                    with open(blobs.place_of(call.cloud, source), "rb") as content:
                        shutil.copyfileobj(content, file, blobs.CHUNK_BYTES)
            count = sum(source.get("componentCount", 1) for source in sources)
            sums = {"crc32c": blobs.file_digests(part)["crc32c"], "componentCount": count}
            made = _put(call, bucket["name"], name, part, sums, about)
            for source in sources if call.body.get("deleteSourceObjects") else []:
                if source["name"] != name:
                    blobs.remove(call.cloud, bucket, source, for_good=False)
    finally:
        part.unlink(missing_ok=True)
    return made


def _source(call: Call, bucket: str, asked: dict) -> dict:
    name = asked.get("name", "")
    found = blobs.find(call, bucket, name, asked.get("generation"))
    if found is None:
        raise blobs.missing(bucket, name)
    conditions.check(found, asked.get("objectPreconditions", {}))
    return found


def _put(call: Call, bucket: str, name: str, part: Path, sums: dict, about: dict) -> dict:
    made = blobs.put(call, bucket, name, part, sums, about, call.query)
    return blobs.shown(made, buckets.find(call, bucket))
