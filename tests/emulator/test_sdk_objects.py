"""google-cloud-storage, unmodified: versions, holds, conditions, encodings, copies, composing."""

import datetime
import gzip
import io
import json
import shutil
import uuid

import httplib2
import pytest
from google.api_core import exceptions
from google.cloud import storage
from googleapiclient.http import MediaIoBaseUpload

from helpers import storage as helpers_storage
from tests.emulator.test_sdk_storage import bucket, client  # noqa: F401

TEXT = b"what is packed " * 200
WHEN = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
ABOUT = {
    "cache_control": "no-store", "content_disposition": "attachment", "content_language": "de",
    "custom_time": WHEN, "metadata": {"k": "v"},
}  # fmt: skip
HOLDS = {"temporary_hold", "event_based_hold"}


def put(bucket, name: str, content: bytes = b"x", **about) -> storage.Blob:  # noqa: F811
    blob = bucket.blob(name)
    for key, value in about.items():
        setattr(blob, key, value)
    blob.upload_from_string(content, content_type="text/x-odd")
    for hold in HOLDS & about.keys():  # this client does not send them with an upload
        setattr(blob, hold, about[hold])
        blob.patch()
    return blob


def fields(blob: storage.Blob) -> dict:
    return {key: getattr(blob, key) for key in (*ABOUT, "content_encoding", "content_type")}


def get(emulator, path: str, **headers: str) -> tuple[httplib2.Response, bytes]:
    """A plain GET that asks for nothing compressed."""
    sent = {"Authorization": f"Bearer {emulator.token}", "Accept-Encoding": "identity"} | headers
    return httplib2.Http().request(f"{emulator.url}{path}", headers=sent)


# --- etags and conditions


def test_etags_change_with_what_they_are_of(bucket):  # noqa: F811
    blob = put(bucket, "one")
    seen = [bucket.etag]
    for value in "12":
        bucket.labels = {"k": value}
        bucket.patch()
        seen.append(bucket.etag)
    assert seen == ["CAE=", "CAI=", "CAM="]
    first = blob.etag
    blob.metadata = {"k": "v"}
    blob.patch()
    assert blob.etag != first
    assert put(bucket, "one").etag not in (first, blob.etag)


def test_a_read_with_etags(bucket):  # noqa: F811
    blob = put(bucket, "one")
    other = bucket.blob("one")
    assert blob.etag
    assert other.exists(if_etag_match=blob.etag)
    assert other.download_as_bytes(if_etag_match=blob.etag) == b"x"
    other.reload(if_etag_not_match="kittens")
    for call in (other.reload, other.download_as_bytes, other.exists):
        with pytest.raises(exceptions.PreconditionFailed):
            call(if_etag_match="kittens")
        with pytest.raises(exceptions.NotModified):
            call(if_etag_not_match=blob.etag)
    bucket.reload(if_etag_match=bucket.etag)
    with pytest.raises(exceptions.NotModified):
        bucket.reload(if_etag_not_match=bucket.etag)


def test_a_read_of_what_is_as_before_answers_304_a_write_412(bucket):  # noqa: F811
    blob = put(bucket, "one")
    same = [
        {"if_generation_not_match": blob.generation}, {"if_metageneration_not_match": 1},
    ]  # fmt: skip
    for condition in same:
        for call in (blob.reload, blob.download_as_bytes):
            with pytest.raises(exceptions.NotModified):
                call(**condition)
        for call in (blob.patch, blob.delete):
            with pytest.raises(exceptions.PreconditionFailed):
                call(**condition)
    blob.reload(if_generation_not_match=1, if_metageneration_match=1)


def test_etags_guard_changes(emulator, bucket):  # noqa: F811
    blob = put(bucket, "one")
    for path, etag in ((f"b/{bucket.name}", bucket.etag), (f"b/{bucket.name}/o/one", blob.etag)):
        for verb in ("PATCH", "PUT", "DELETE"):
            body = "" if verb == "DELETE" else "{}"
            for header in ({"If-Match": '"stale"'}, {"If-None-Match": etag}):
                status, _ = emulator.request(verb, f"/storage/v1/{path}", body=body, headers=header)
                assert status == 412, (verb, path, header)
        answer = emulator.request("PATCH", f"/storage/v1/{path}", body="{}",
                                  headers={"If-Match": etag})  # fmt: skip
        assert answer[0] == 200


@pytest.mark.parametrize("verb", ["get", "patch", "update", "delete"])
def test_conditions_on_buckets(emulator, client, verb):  # noqa: F811
    name = f"b-{uuid.uuid4().hex[:10]}"
    client.create_bucket(name)
    buckets = emulator.api("storage").buckets()
    body = {"body": {}} if verb in ("patch", "update") else {}
    call = getattr(buckets, verb)
    for condition, status in (
        ({"ifMetagenerationMatch": "7"}, 412),
        ({"ifMetagenerationNotMatch": "1"}, 304 if verb == "get" else 412),
    ):
        request = call(bucket=name, **body, **condition)
        answer, _ = httplib2.Http().request(
            request.uri, request.method, request.body,
            {"Authorization": f"Bearer {emulator.token}", "Content-Type": "application/json"},
        )  # fmt: skip
        assert answer.status == status, condition
    client.get_bucket(name)
    emulator.session.call(call(bucket=name, **body, ifMetagenerationMatch="1"))


# --- settings of buckets


def test_put_replaces_what_patch_merges(emulator, bucket):  # noqa: F811
    buckets = emulator.api("storage").buckets()
    bucket.labels, bucket.storage_class = {"a": "1"}, "NEARLINE"
    bucket.versioning_enabled = True
    bucket.patch()
    body = {"labels": {"b": "2"}}
    made = emulator.session.call(buckets.patch(bucket=bucket.name, body=body))
    assert (made["labels"], made["storageClass"]) == ({"a": "1", "b": "2"}, "NEARLINE")
    made = emulator.session.call(buckets.update(bucket=bucket.name, body=body))
    assert (made["labels"], made["storageClass"]) == ({"b": "2"}, "STANDARD")
    assert "versioning" not in made
    assert (made["location"], made["name"]) == ("US-CENTRAL1", bucket.name)
    bucket.reload()
    bucket.update()  # all that the client knows, sent back
    assert bucket.labels == {"b": "2"}
    for change in ({"location": "EU"}, {"name": "another"}):
        status, _ = emulator.request("PATCH", f"/storage/v1/b/{bucket.name}", json_body=change)
        assert status == 400


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("us-east1", "region"),
        ("EU", "multi-region"),
        ("nam4", "dual-region"),
        (None, "multi-region"),
    ],
)
def test_a_bucket_says_what_kind_of_place_it_is_in(client, location, kind):  # noqa: F811
    made = client.create_bucket(f"b-{uuid.uuid4().hex[:10]}", location=location)
    assert made.location_type == client.get_bucket(made.name).location_type == kind
    made.delete()


def test_public_access_is_prevented(emulator, bucket):  # noqa: F811
    access = bucket.iam_configuration
    assert access.public_access_prevention == "inherited"
    access.public_access_prevention = "Enforced, please"
    with pytest.raises(exceptions.BadRequest, match="publicAccessPrevention"):
        bucket.patch()
    access.public_access_prevention = "enforced"
    bucket.patch()
    policy = bucket.get_iam_policy()
    policy["roles/storage.objectViewer"] = {"allUsers"}
    with pytest.raises(exceptions.PreconditionFailed, match="public access prevention"):
        bucket.set_iam_policy(policy)


def test_uniform_access_has_two_names(emulator, bucket):  # noqa: F811
    path = f"/storage/v1/b/{bucket.name}"
    for name in ("uniformBucketLevelAccess", "bucketPolicyOnly"):
        for enabled in (True, False):
            body = {"iamConfiguration": {name: {"enabled": enabled}}}
            access = emulator.request("PATCH", path, json_body=body)[1]["iamConfiguration"]
            assert access["uniformBucketLevelAccess"] == access["bucketPolicyOnly"]
            assert access["bucketPolicyOnly"]["enabled"] == enabled
            assert ("lockedTime" in access["bucketPolicyOnly"]) == enabled


def test_conditions_of_policies(bucket):  # noqa: F811
    binding = {
        "role": "roles/storage.objectViewer", "members": {"user:a@example.com"},
        "condition": {"title": "t", "expression": "true"},
    }  # fmt: skip

    def grant(version: int) -> None:
        policy = bucket.get_iam_policy(requested_policy_version=3)
        policy.version, policy.bindings = version, [binding]
        bucket.set_iam_policy(policy)

    with pytest.raises(exceptions.BadRequest, match="uniform"):
        grant(3)
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.patch()
    with pytest.raises(exceptions.BadRequest, match="version 3"):
        grant(1)
    with pytest.raises(exceptions.BadRequest, match="version 2"):
        grant(2)
    grant(3)
    kept = bucket.get_iam_policy(requested_policy_version=3)
    assert (kept.version, kept.bindings[0]["condition"]) == (3, binding["condition"])
    with pytest.raises(exceptions.PreconditionFailed, match="less than"):
        bucket.get_iam_policy()


# --- what an object keeps


@pytest.mark.parametrize("how", ["simple", "multipart", "resumable"])
def test_settings_of_an_upload_are_kept(bucket, how):  # noqa: F811
    blob = bucket.blob("one", chunk_size=2**18 if how == "resumable" else None)
    blob.content_encoding, blob.storage_class = "br", "COLDLINE"
    for key, value in ABOUT.items():
        setattr(blob, key, value)
    blob.upload_from_file(io.BytesIO(TEXT * 200), content_type="text/x-odd")
    found = bucket.get_blob("one")
    assert fields(found) == ABOUT | {"content_encoding": "br", "content_type": "text/x-odd"}
    assert found.storage_class == "COLDLINE"
    found.content_encoding, found.custom_time = "identity", WHEN.replace(year=2027)
    found.patch()
    found.reload()
    assert (found.content_encoding, found.custom_time.year) == ("identity", 2027)
    for earlier in (WHEN, None):
        found.custom_time = earlier
        with pytest.raises(exceptions.BadRequest, match="customTime"):
            found.patch()
    found.reload()
    found.storage_class = "STANDARD"
    with pytest.raises(exceptions.BadRequest, match="storageClass"):
        found.patch()


def test_the_class_is_the_buckets_until_an_object_has_its_own(bucket):  # noqa: F811
    bucket.storage_class = "NEARLINE"
    bucket.patch()
    blob = put(bucket, "one")
    assert blob.storage_class == "NEARLINE"
    blob.update_storage_class("ARCHIVE")
    assert bucket.get_blob("one").storage_class == "ARCHIVE"
    assert bucket.copy_blob(blob, bucket, "two").storage_class == "NEARLINE"
    with pytest.raises(exceptions.BadRequest, match="storageClass"):
        put(bucket, "three", storage_class="WARM")


def test_times_are_shown_in_utc_and_must_be_times(emulator, bucket):  # noqa: F811
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=t"
    for wrong in ("yesterday", "2026-01-02", "2026-13-02T03:04:05Z"):
        assert emulator.request("POST", path, json_body={"customTime": wrong})[0] == 400
    objects = emulator.api("storage").objects()
    media = MediaIoBaseUpload(io.BytesIO(b"x"), "text/plain")
    body = {"customTime": "2026-01-02T05:04:05+02:00"}
    request = objects.insert(bucket=bucket.name, name="t", body=body, media_body=media)
    assert emulator.session.call(request)["customTime"] == "2026-01-02T03:04:05.000000Z"


def test_what_is_unknown_in_an_uploads_metadata_is_refused(emulator, bucket):  # noqa: F811
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=resumable&name=t"
    status, error = emulator.request("POST", path, json_body={"colour": "red"})
    assert (status, "colour" in error["error"]["message"]) == (400, True)


@pytest.mark.parametrize("way", ["copy", "rewrite"])
def test_copies_keep_settings_unless_told_otherwise(emulator, bucket, way):  # noqa: F811
    source = put(bucket, "one", **ABOUT, content_encoding="br", temporary_hold=True)
    objects = emulator.api("storage").objects()

    def copy(name: str, body: dict, **query) -> storage.Blob:
        request = getattr(objects, way)(
            sourceBucket=bucket.name, sourceObject="one", destinationBucket=bucket.name,
            destinationObject=name, body=body, **query,
        )  # fmt: skip
        emulator.session.call(request)
        return bucket.get_blob(name)

    plain = copy("two", {})
    assert fields(plain) == fields(source)
    assert (plain.md5_hash, plain.temporary_hold) == (source.md5_hash, None)
    other = copy("three", {"cacheControl": "public", "contentType": "a/b"})  # these and no others
    assert (other.cache_control, other.content_type, other.metadata) == ("public", "a/b", None)
    assert (other.content_encoding, other.content_disposition) == (None, None)
    for condition in (
        {"ifSourceGenerationMatch": "1"}, {"ifSourceMetagenerationMatch": "7"},
        {"ifSourceMetagenerationNotMatch": str(source.metageneration)}, {"ifGenerationMatch": "0"},
        {"ifSourceGenerationNotMatch": str(source.generation)},
    ):  # fmt: skip
        with pytest.raises(helpers_storage.CloudError) as caught:
            copy("two", {}, **condition)
        assert caught.value.status == 412, condition
    with pytest.raises(helpers_storage.CloudError) as caught:
        copy("four", {}, sourceGeneration="1")
    assert caught.value.status == 404
    assert copy("four", {}, sourceGeneration=str(source.generation)).size == 1
    source.temporary_hold = False
    source.patch()


# --- compressed content


def test_compressed_objects_are_read_as_they_were_before(emulator, bucket):  # noqa: F811
    packed = gzip.compress(TEXT[:1000]) + gzip.compress(TEXT[1000:])
    blob = put(bucket, "packed", packed, content_encoding="gzip")
    assert bucket.blob("packed").download_as_bytes() == TEXT
    assert bucket.blob("packed").download_as_bytes(raw_download=True) == packed
    assert blob.download_as_bytes(raw_download=True, start=2, end=5) == packed[2:6]
    path = f"/storage/v1/b/{bucket.name}/o/packed?alt=media"
    for accepted in ("identity", "br", "gzip;q=0, deflate"):
        answer, content = get(emulator, path, **{"Accept-Encoding": accepted, "Range": "bytes=0-3"})
        assert (answer.status, content) == (200, TEXT)
        assert "content-encoding" not in answer
        assert "content-length" not in answer or int(answer["content-length"]) == len(TEXT)
        assert answer["x-goog-stored-content-encoding"] == "gzip"
        assert answer["x-goog-stored-content-length"] == str(len(packed))
    answer, content = get(emulator, path, **{"Accept-Encoding": "gzip", "Range": "bytes=0-3"})
    assert answer.status == 206
    blob.cache_control = "public, no-transform"
    blob.patch()
    answer, content = get(emulator, path)
    assert TEXT.startswith(content)  # httplib2 unpacks the first part of what says it is packed
    assert answer["-content-encoding"] == "gzip"


def test_plain_bytes_that_say_they_are_compressed_come_as_they_are(emulator, bucket):  # noqa: F811
    put(bucket, "liar", b"plain", content_encoding="gzip")
    assert bucket.blob("liar").download_as_bytes(raw_download=True) == b"plain"
    put(bucket, "other", b"plain", content_encoding="x-own")
    answer, content = get(emulator, f"/storage/v1/b/{bucket.name}/o/other?alt=media")
    assert (answer["content-encoding"], content) == ("x-own", b"plain")


def test_the_query_names_the_encoding_of_a_simple_upload(emulator, bucket):  # noqa: F811
    packed = gzip.compress(TEXT)
    path = f"/upload/storage/v1/b/{bucket.name}/o?uploadType=media&name=q&contentEncoding=gzip"
    status, made = emulator.request("POST", path, body=packed)
    assert (status, made["contentEncoding"]) == (200, "gzip")
    assert bucket.blob("q").download_as_bytes() == TEXT


def test_helpers_read_compressed_objects(emulator, bucket):  # noqa: F811
    put(bucket, "packed", gzip.compress(TEXT), content_encoding="gzip")
    uri = f"gs://{bucket.name}/packed"
    assert helpers_storage.read_bytes(emulator.session, uri) == TEXT


# --- versions


@pytest.fixture
def versioned(bucket):  # noqa: F811
    bucket.versioning_enabled = True
    bucket.patch()
    return bucket


def generations(bucket, **asked) -> list[tuple[str, int]]:  # noqa: F811
    return [(b.name, b.generation) for b in bucket.list_blobs(versions=True, **asked)]


def test_what_was_replaced_is_a_version(emulator, versioned):
    first = put(versioned, "a/one", b"1", metadata={"k": "1"})
    second = put(versioned, "a/one", b"2")
    other = put(versioned, "b", b"x")
    assert [b.name for b in versioned.list_blobs()] == ["a/one", "b"]
    listed = [(b.name, b.generation) for b in (first, second, other)]
    assert generations(versioned) == listed
    assert generations(versioned, prefix="a/") == listed[:2]
    pages = versioned.list_blobs(versions=True, page_size=1).pages
    assert [(b.name, b.generation) for page in pages for b in page] == listed
    old = versioned.blob("a/one", generation=first.generation)
    old.reload()
    assert (old.download_as_bytes(), old.metadata, old.time_deleted is None) == (
        b"1", {"k": "1"}, False,
    )  # fmt: skip
    assert versioned.blob("a/one").download_as_bytes() == b"2"
    assert (emulator.folder / "buckets" / versioned.name / "a" / "one").read_bytes() == b"2"
    old.metadata = {"k": "2"}
    old.patch()
    assert versioned.get_blob("a/one", generation=first.generation).metadata == {"k": "2"}
    versioned.copy_blob(old, versioned, "a/one", source_generation=first.generation)
    assert versioned.blob("a/one").download_as_bytes() == b"1"
    assert len(generations(versioned)) == 4


def test_what_was_deleted_is_a_version_until_that_is_deleted(versioned):
    first, second = put(versioned, "one", b"1"), put(versioned, "one", b"2")
    versioned.blob("one").delete()
    assert not versioned.blob("one").exists()
    assert len(generations(versioned)) == 2
    with pytest.raises(exceptions.PreconditionFailed):
        versioned.blob("one").upload_from_string(b"3", if_generation_match=second.generation)
    third = put(versioned, "one", b"3")
    versioned.delete_blob("one", generation=third.generation)  # a live one, for good
    versioned.delete_blob("one", generation=first.generation)
    assert generations(versioned) == [("one", second.generation)]
    with pytest.raises(exceptions.NotFound):
        versioned.delete_blob("one", generation=first.generation)
    with pytest.raises(exceptions.Conflict):
        versioned.delete()
    versioned.versioning_enabled = False
    versioned.patch()
    put(versioned, "one", b"4")
    put(versioned, "one", b"5")
    assert len(generations(versioned)) == 2  # no more are made; what there is stays


def test_versions_survive_a_kill(start_emulator):
    running = start_emulator()
    path = "/storage/v1/b?project=local"
    body = {"name": "kept", "versioning": {"enabled": True}}
    assert running.request("POST", path, json_body=body)[0] == 200
    upload = "/upload/storage/v1/b/kept/o?uploadType=media&name=one"
    first = running.request("POST", upload, body=b"1")[1]
    running.request("POST", upload, body=b"2")
    running.request("DELETE", "/storage/v1/b/kept/o/one")
    (running.folder / "apart" / "stray").write_bytes(b"of no object")
    running.kill()
    again = start_emulator()
    items = again.request("GET", "/storage/v1/b/kept/o?versions=true")[1]["items"]
    assert [item["size"] for item in items] == ["1", "1"]
    path = f"/storage/v1/b/kept/o/one?alt=media&generation={first['generation']}"
    assert get(again, path)[1] == b"1"
    assert len(list((again.folder / "apart").iterdir())) == 2


# --- holds and retention


@pytest.mark.parametrize("hold", ["temporary_hold", "event_based_hold"])
def test_what_is_held_stays_as_it_is(bucket, hold):  # noqa: F811
    blob = put(bucket, "one", **{hold: True})
    assert getattr(bucket.get_blob("one"), hold)
    for change in (blob.delete, lambda: put(bucket, "one"), lambda: blob.rewrite(blob)):
        with pytest.raises(exceptions.Forbidden, match="under active") as caught:
            change()
        error = caught.value.response.json()["error"]["errors"][0]
        assert error["reason"] == "retentionPolicyNotMet"
    bucket.versioning_enabled = True
    bucket.patch()
    with pytest.raises(exceptions.Forbidden, match="under active"):
        blob.delete()
    blob.metadata = {"still": "free"}
    blob.patch()
    setattr(blob, hold, False)
    blob.patch()
    blob.delete()


def test_new_objects_are_held_where_the_bucket_says_so(bucket):  # noqa: F811
    bucket.default_event_based_hold = True
    bucket.patch()
    blob = put(bucket, "one")
    assert bucket.get_blob("one").event_based_hold
    with pytest.raises(exceptions.Forbidden):
        blob.delete()
    blob.event_based_hold = False
    blob.patch()
    blob.delete()


def test_objects_are_retained_as_long_as_the_policy_says(bucket):  # noqa: F811
    early = put(bucket, "early")
    bucket.retention_period = 1000
    bucket.patch()
    assert isinstance(bucket.retention_policy_effective_time, datetime.datetime)
    early.reload()
    assert early.retention_expiration_time - early.time_created == datetime.timedelta(seconds=1000)
    for change in (early.delete, lambda: put(bucket, "early")):
        with pytest.raises(exceptions.Forbidden, match="retention policy"):
            change()
    held = put(bucket, "held", event_based_hold=True)
    assert held.retention_expiration_time is None
    held.event_based_hold = False
    held.patch()
    held.reload()
    after = held.retention_expiration_time - datetime.timedelta(seconds=1000)
    assert after > held.time_created
    bucket.versioning_enabled = True
    bucket.patch()
    second = put(bucket, "early", b"2")  # what is retained may become a version
    with pytest.raises(exceptions.Forbidden, match="retention policy"):
        bucket.delete_blob("early", generation=early.generation)
    bucket.retention_period = None
    bucket.patch()
    assert bucket.retention_policy_effective_time is None
    for blob in (early, second):
        bucket.delete_blob("early", generation=blob.generation)


def test_a_locked_policy_only_grows(emulator, bucket):  # noqa: F811
    path = f"/storage/v1/b/{bucket.name}/lockRetentionPolicy"
    assert emulator.request("POST", f"{path}?ifMetagenerationMatch=1")[0] == 400
    bucket.retention_period = 100
    bucket.patch()
    assert not bucket.retention_policy_locked
    assert emulator.request("POST", path)[0] == 400
    assert emulator.request("POST", f"{path}?ifMetagenerationMatch=1")[0] == 412
    bucket.lock_retention_policy()
    bucket.reload()
    assert bucket.retention_policy_locked
    for period in (99, None):
        bucket.retention_period = period
        with pytest.raises(exceptions.Forbidden):
            bucket.patch()
    assert emulator.request("PUT", f"/storage/v1/b/{bucket.name}", json_body={})[0] == 403
    bucket.reload()
    bucket.retention_period = 101
    bucket.patch()
    assert bucket.retention_policy_locked
    for wrong in (-1, 3_155_760_000):
        bucket.retention_period = wrong
        with pytest.raises((exceptions.BadRequest, exceptions.Forbidden)):
            bucket.patch()


# --- composed objects, placeholders, names


def test_objects_are_composed(bucket):  # noqa: F811
    parts = [put(bucket, f"part{i}", bytes([i]) * 1000) for i in range(3)]
    whole = bucket.blob("whole")
    whole.metadata, whole.storage_class = {"k": "v"}, "NEARLINE"
    whole.compose(parts, if_generation_match=0)
    found = bucket.get_blob("whole")
    assert found.download_as_bytes() == b"".join(bytes([i]) * 1000 for i in range(3))
    assert (found.component_count, found.md5_hash, found.metadata) == (3, None, {"k": "v"})
    found = bucket.get_blob("whole")
    assert (found.storage_class, found.content_type) == ("NEARLINE", None)
    found.compose([found, parts[0]])  # appending
    assert (found.size, found.component_count) == (4000, 4)
    with pytest.raises(exceptions.PreconditionFailed):
        whole.compose(parts, if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        whole.compose(parts, if_source_generation_match=[1, 1, 1])
    with pytest.raises(exceptions.NotFound):
        whole.compose([bucket.blob("nothing")])
    for wrong in ([], parts * 11):
        with pytest.raises(exceptions.BadRequest, match="1 to 32"):
            whole.compose(wrong)


def test_parts_go_with_the_composition_when_asked_to(emulator, bucket):  # noqa: F811
    for name in ("one", "two"):
        put(bucket, name)
    body = {"sourceObjects": [{"name": "one"}, {"name": "two"}], "deleteSourceObjects": True}
    objects = emulator.api("storage").objects()
    request = objects.compose(destinationBucket=bucket.name, destinationObject="one", body=body)
    assert emulator.session.call(request)["size"] == "2"
    assert [b.name for b in bucket.list_blobs()] == ["one"]


def test_placeholders_of_folders(emulator, client, bucket):  # noqa: F811
    top = emulator.folder / "buckets" / bucket.name
    put(bucket, "a/b/", b"")
    assert (top / "a" / "b").is_dir()
    assert bucket.get_blob("a/b/").size == 0
    put(bucket, "a/b/c")
    assert [b.name for b in client.list_blobs(bucket)] == ["a/b/", "a/b/c"]
    listed = client.list_blobs(bucket, prefix="a/", delimiter="/")
    assert ([b.name for b in listed], listed.prefixes) == ([], {"a/b/"})
    listed = client.list_blobs(bucket, prefix="a/", delimiter="/", include_trailing_delimiter=True)
    assert ([b.name for b in listed], listed.prefixes) == (["a/b/"], {"a/b/"})
    bucket.delete_blob("a/b/c")
    assert (top / "a" / "b").is_dir()
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    put(bucket, "a/b/", b"content, which is allowed")
    assert bucket.blob("a/b/").download_as_bytes() == b"content, which is allowed"
    bucket.delete_blob("a/b/")
    assert not (top / "a").exists()
    assert list(client.list_blobs(bucket)) == []


def test_helpers_fetch_folders_with_placeholders(emulator, bucket, tmp_path):  # noqa: F811
    for name in ("top/", "top/empty/", "top/full/", "top/full/file"):
        put(bucket, name, b"" if name.endswith("/") else b"x")
    helpers_storage.download_folder(emulator.session, f"gs://{bucket.name}/top", tmp_path / "own")
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert found == ["own", "own/empty", "own/full", "own/full/file"]
    assert helpers_storage.delete(emulator.session, f"gs://{bucket.name}/top/") == 4


@pytest.mark.parametrize("first", ["a", "a/b"])
def test_an_object_beside_a_folder_of_its_name(emulator, client, bucket, first):  # noqa: F811
    names = ["a", "a/b"] if first == "a" else ["a/b", "a"]
    for name in names:
        put(bucket, name, name.encode(), metadata={"own": name.replace("/", "-")})
    assert [b.name for b in client.list_blobs(bucket)] == ["a", "a/b"]
    for name in names:
        assert bucket.blob(name).download_as_bytes() == name.encode()
        assert bucket.get_blob(name).metadata == {"own": name.replace("/", "-")}
    assert (emulator.folder / "buckets" / bucket.name / "a" / "b").read_bytes() == b"a/b"
    listed = client.list_blobs(bucket, delimiter="/")
    assert ([b.name for b in listed], listed.prefixes) == (["a"], {"a/"})
    put(bucket, "a", b"new")
    assert bucket.blob("a").download_as_bytes() == b"new"
    bucket.delete_blob("a")
    assert [b.name for b in client.list_blobs(bucket)] == ["a/b"]
    bucket.delete_blob("a/b")
    assert not list((emulator.folder / "buckets" / bucket.name).iterdir())


def test_both_survive_a_kill(start_emulator):
    running = start_emulator()
    running.request("POST", "/storage/v1/b?project=local", json_body={"name": "both"})
    upload = "/upload/storage/v1/b/both/o?uploadType=media&name="
    for name, content in (("a", b"1"), ("a/b", b"2"), ("a/c/", b"3")):
        assert running.request("POST", f"{upload}{name}", body=content)[0] == 200
    running.kill()
    again = start_emulator()
    items = again.request("GET", "/storage/v1/b/both/o")[1]["items"]
    assert [item["name"] for item in items] == ["a", "a/b", "a/c/"]
    for name, content in (("a", b"1"), ("a%2Fb", b"2"), ("a%2Fc%2F", b"3")):
        assert get(again, f"/storage/v1/b/both/o/{name}?alt=media")[1] == content
    again.kill()
    top = again.folder / "buckets" / "both" / "a"
    apart = [path for path in (again.folder / "apart").iterdir() if path.read_bytes() == b"1"]
    shutil.rmtree(top)
    apart[0].rename(top)  # as if killed before "a" made room for the folder
    third = start_emulator()
    assert get(third, "/storage/v1/b/both/o/a?alt=media")[1] == b"1"
    assert third.request("DELETE", "/storage/v1/b/both/o/a")[0] == 204
    assert not top.exists()


# --- ways in and parts of answers


def test_the_xml_api_and_batches_are_named(emulator, client, bucket):  # noqa: F811
    put(bucket, "one")
    for verb, path in (
        ("GET", f"/{bucket.name}"), ("GET", f"/{bucket.name}/one"), ("PUT", f"/{bucket.name}/one"),
        ("POST", f"/{bucket.name}/one?uploads"), ("DELETE", f"/{bucket.name}/one"),
        ("PUT", "/new-bucket-by-xml"),
    ):  # fmt: skip
        status, error = emulator.request(verb, path)
        assert (status, "XML API" in error["error"]["message"]) == (501, True), (verb, path)
    assert emulator.request("GET", "/no-such-bucket/one")[0] == 404
    with pytest.raises(exceptions.MethodNotImplemented, match="batch of calls"), client.batch():
        bucket.delete_blob("one")


def test_parts_of_answers(emulator, client, bucket):  # noqa: F811
    put(bucket, "one", metadata={"a": "1", "b": "2"})
    path = f"/storage/v1/b/{bucket.name}"
    asked = {
        f"{path}/o?fields=items(name,metadata/a)": {
            "items": [{"name": "one", "metadata": {"a": "1"}}]
        },
        f"{path}/o/one?fields=size": {"size": "1"},
        f"{path}?fields=iamConfiguration/uniformBucketLevelAccess(enabled),name": {
            "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": False}},
            "name": bucket.name,
        },
    }  # fmt: skip
    for query, answer in asked.items():
        assert emulator.request("GET", query) == (200, answer)
    assert emulator.request("GET", f"{path}/o?fields=items(name")[0] == 400
    blob = next(iter(client.list_blobs(bucket, fields="items(name),nextPageToken")))
    assert (blob.name, json.dumps(blob.size)) == ("one", "null")
