"""What becomes of each field, parameter and header of Cloud Storage that a client may send.

A place is kept and honoured, kept without effect, or the service's own (ignored in requests, as on
Google). What is in none of these tables answers 501: nothing is dropped without a word.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Any

import orjson
from starlette.responses import Response

from helpers.emulator.front import partial
from helpers.emulator.front.calls import ApiError, Call, method, not_emulated
from helpers.emulator.front.discovery import by_id

CLASSES = {
    "STANDARD", "NEARLINE", "COLDLINE", "ARCHIVE", "MULTI_REGIONAL", "REGIONAL",
    "DURABLE_REDUCED_AVAILABILITY",
}  # fmt: skip

# Fields by their place in the schema; a place stands for all that is below it.
HONOURED: dict[str, set[str]] = {
    "Bucket": {
        "name", "labels", "storageClass", "versioning.enabled", "defaultEventBasedHold",
        "retentionPolicy.retentionPeriod", "iamConfiguration.publicAccessPrevention",
        "iamConfiguration.uniformBucketLevelAccess.enabled",
        "iamConfiguration.bucketPolicyOnly.enabled",
    },
    "Object": {
        "name", "contentType", "contentEncoding", "contentDisposition", "contentLanguage",
        "cacheControl", "metadata", "customTime", "storageClass", "eventBasedHold",
        "temporaryHold", "crc32c", "md5Hash",
    },
    "ComposeRequest": {"sourceObjects", "destination", "deleteSourceObjects"},
    "Policy": {"bindings", "version", "etag"},
}  # fmt: skip
WITHOUT_EFFECT: dict[str, dict[str, str]] = {
    "Bucket": {
        "autoclass": "objects keep their class",
        "billing": "nothing costs anything",
        "cors": "calls from web pages are refused anyway",
        "customPlacementConfig": "makes it a dual-region, otherwise as location",
        "lifecycle": "objects are neither deleted nor moved to another class",
        "location": "checked; everything is on this machine",
        "logging": "no usage logs are written",
        "rpo": "there is one copy",
        "website": "there are no public pages",
    },
    "Object": {},
    "ComposeRequest": {},
    "Policy": {"bindings[].condition": "checked, not evaluated: the binding holds always"},
}
ASSIGNED: dict[str, set[str]] = {
    "Bucket": {
        "etag", "generation", "hardDeleteTime", "id", "kind", "locationType", "metageneration",
        "owner", "projectNumber", "satisfiesPZI", "satisfiesPZS", "selfLink", "softDeleteTime",
        "timeCreated", "updated", "autoclass.terminalStorageClassUpdateTime",
        "autoclass.toggleTime", "iamConfiguration.bucketPolicyOnly.lockedTime",
        "iamConfiguration.uniformBucketLevelAccess.lockedTime", "retentionPolicy.effectiveTime",
        "retentionPolicy.isLocked", "softDeletePolicy.effectiveTime",
    },
    "Object": {
        "bucket", "componentCount", "etag", "generation", "hardDeleteTime", "id", "kind",
        "mediaLink", "metageneration", "owner", "restoreToken", "retentionExpirationTime",
        "selfLink", "size", "softDeleteTime", "timeCreated", "timeDeleted", "timeFinalized",
        "timeStorageClassUpdated", "updated",
    },
    "ComposeRequest": {"kind"},
    "Policy": {"kind", "resourceId"},
}  # fmt: skip
CHOICES: dict[str, dict[str, set[str]]] = {
    "Bucket": {
        "storageClass": CLASSES, "rpo": {"DEFAULT", "ASYNC_TURBO"},
        "iamConfiguration.publicAccessPrevention": {"inherited", "enforced", "unspecified"},
    },
    "Object": {"storageClass": CLASSES},
}  # fmt: skip

CONDITIONS = {
    f"if{whose}{what}{how}"
    for whose in ("", "Source")
    for what in ("Generation", "Metageneration")
    for how in ("Match", "NotMatch")
}
HONOURED_QUERY = CONDITIONS | {
    "alt", "contentEncoding", "delimiter", "endOffset", "fields", "generation",
    "includeTrailingDelimiter", "matchGlob", "maxResults", "name", "optionsRequestedPolicyVersion",
    "pageToken", "permissions", "prefix", "project", "sourceGeneration", "startOffset",
    "uploadType", "upload_id", "versions",
}  # fmt: skip
QUERY_WITHOUT_EFFECT = {
    "includeFoldersAsPrefixes": "there are no folders beside objects",
    "key": "the token says who calls",
    "maxBytesRewrittenPerCall": "the whole copy is made at once",
    "oauth_token": "the token is sent as a header",
    "overrideUnlockedRetention": "no object has a retention of its own",
    "prettyPrint": "answers are compact",
    "projection": "there are no access control lists to leave out",
    "quotaUser": "there are no quotas",
    "returnPartialSuccess": "every bucket can be reached",
    "userIp": "there are no quotas",
    "userProject": "nothing costs anything",
    "$alt": "answers are JSON",
    "$prettyPrint": "answers are compact",
}
HONOURED_HEADERS = {
    "accept-encoding", "content-md5", "content-range", "content-type", "if-match", "if-none-match",
    "range", "x-goog-hash", "x-upload-content-type",
}  # fmt: skip
REFUSED_HEADERS = ("x-goog-encryption-", "x-goog-copy-source-encryption-")
HEADERS_WITHOUT_EFFECT = {
    "x-goog-user-project": "nothing costs anything",
    "x-goog-custom-audit-": "there are no audit logs",
    "x-upload-content-length": "the last `Content-Range` says the size",
    "if-modified-since": "only the XML API knows it, as the next two",
    "if-unmodified-since": "dates are no generations",
    "x-goog-if-": "the query has these conditions",
}


def serve(*names: str, streamed: bool = False) -> Callable:
    """Serve methods of Cloud Storage; a call is checked by the tables first, and its body holds
    only what is kept."""
    ids = [f"storage.{name}" for name in names]

    def register(handler: Callable) -> Callable:
        if asyncio.iscoroutinefunction(handler):

            @functools.wraps(handler)
            async def checked(call: Call):
                _check(call)
                return _answer(call, await handler(call))

        else:

            @functools.wraps(handler)
            def checked(call: Call):
                _check(call)
                return _answer(call, handler(call))

        return method(*ids, streamed=streamed)(checked)

    return register


def sift(schema: str, body: dict, *, at: str = "") -> dict:
    """A body without what only the service sets.

    Raises:
        ApiError: 501 for what is not emulated, 400 for a value that is none of the choices.
    """
    kept = HONOURED[schema] | set(WITHOUT_EFFECT[schema])
    known, made = kept | ASSIGNED[schema], {}
    for name, value in body.items():
        place = at + name
        if place in ASSIGNED[schema]:
            continue
        if place in kept:
            choices = CHOICES.get(schema, {}).get(place)
            if choices and value is not None and value not in choices:
                listed = ", ".join(sorted(choices))
                raise ApiError(400, f"Invalid value for {place}: {value!r}; expected {listed}.")
            made[name] = value
            if isinstance(value, dict):
                hidden = {p[len(place) + 1 :] for p in ASSIGNED[schema] if _below(p, place)}
                made[name] = {k: v for k, v in value.items() if k not in hidden}
        elif any(_below(p, place) for p in known) and isinstance(value, dict | None):
            made[name] = sift(schema, value, at=f"{place}.") if value else value
        elif not _empty(value):
            raise not_emulated(f"{place} of {schema}")
        elif value:  # such as {"enabled": false}: it is so here
            made[name] = value
    return made


def _check(call: Call) -> None:
    for name, value in call.query.items():
        if name not in HONOURED_QUERY and name not in QUERY_WITHOUT_EFFECT and not _empty(value):
            raise not_emulated(f"{name} of {call.method_id}")
    for name in call.request.headers:
        if name.startswith(REFUSED_HEADERS):
            raise not_emulated(f"the header {name} (a key of the customer's)")
    schema = by_id(call.method_id).about.get("request", {}).get("$ref")
    if schema in HONOURED:
        call.body = sift(schema, call.body)


def _answer(call: Call, answer: dict | Response) -> Response:
    if isinstance(answer, Response):
        return answer
    mask = call.query.get("fields")
    content = orjson.dumps(partial.select(answer, mask) if mask else answer)
    return Response(content, media_type="application/json; charset=UTF-8")


def _below(place: str, above: str) -> bool:
    return place.startswith(f"{above}.")


def _empty(value: Any) -> bool:
    """Whether it asks for nothing: false, zero, or a message of such values."""
    if isinstance(value, dict):
        return all(_empty(inner) for inner in value.values())
    return not value or value == "0"
