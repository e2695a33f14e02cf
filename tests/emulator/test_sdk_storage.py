"""google-cloud-storage, unmodified, as a client of the local cloud."""

import io
import os
import uuid

import pytest
from google.api_core import exceptions
from google.cloud import storage
from google.cloud.storage import transfer_manager


@pytest.fixture
def client(emulator) -> storage.Client:
    options = {"api_endpoint": emulator.url}
    return storage.Client(
        project="local", credentials=emulator.session.credentials, client_options=options
    )


@pytest.fixture
def bucket(client):
    made = client.create_bucket(f"b-{uuid.uuid4().hex[:10]}", location="us-central1")
    yield made
    if made.exists():
        made.delete(force=True)


def test_buckets_are_made_found_changed_and_deleted_with_what_is_in_them(client, bucket):
    assert bucket.location == "US-CENTRAL1"
    assert bucket.project_number > 1
    assert client.lookup_bucket(bucket.name).name == bucket.name
    assert client.lookup_bucket(f"{bucket.name}-no") is None
    assert bucket.name in [each.name for each in client.list_buckets(prefix="b-")]
    bucket.labels = {"phase": "test"}
    bucket.iam_configuration.uniform_bucket_level_access_enabled = True
    bucket.patch()
    again = client.get_bucket(bucket.name)
    assert again.labels == {"phase": "test"}
    assert again.iam_configuration.uniform_bucket_level_access_enabled
    with pytest.raises(exceptions.Conflict):
        client.create_bucket(bucket.name)
    for i in range(3):
        bucket.blob(f"folder/{i}").upload_from_string(b"x")
    with pytest.raises(exceptions.Conflict):
        bucket.delete()
    bucket.delete(force=True)
    assert not bucket.exists()


def test_policies_are_kept(bucket):
    policy = bucket.get_iam_policy(requested_policy_version=3)
    policy.version = 3
    member = "serviceAccount:1-compute@developer.gserviceaccount.com"
    policy.bindings.append({"role": "roles/storage.objectViewer", "members": {member}})
    bucket.set_iam_policy(policy)
    kept = bucket.get_iam_policy(requested_policy_version=3)
    assert [(b["role"], set(b["members"])) for b in kept.bindings] == [
        ("roles/storage.objectViewer", {member})
    ]
    stale = policy
    stale.etag = "c3RhbGU="
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.set_iam_policy(stale)
    asked = ["storage.objects.get", "storage.objects.create"]
    assert bucket.test_iam_permissions(asked) == asked


def test_a_policy_as_a_mapping(bucket):
    """The way without versions."""
    policy = bucket.get_iam_policy()
    policy.setdefault("roles/storage.objectCreator", set()).add("user:a@example.com")
    bucket.set_iam_policy(policy)
    assert bucket.get_iam_policy()["roles/storage.objectCreator"] == {"user:a@example.com"}


def test_blobs_with_metadata(bucket):
    blob = bucket.blob("a folder/größe.txt")
    blob.metadata = {"colour": "red"}
    blob.cache_control, blob.content_language = "no-store", "de"
    blob.upload_from_string("hällo", content_type="text/plain; charset=utf-8", checksum="crc32c")
    found = bucket.get_blob("a folder/größe.txt")
    assert found.metadata == {"colour": "red"}
    assert (found.cache_control, found.content_language) == ("no-store", "de")
    assert (found.size, found.content_type) == (6, "text/plain; charset=utf-8")
    assert (found.crc32c, found.md5_hash) == (blob.crc32c, blob.md5_hash)
    assert found.download_as_text() == "hällo"
    assert found.download_as_bytes(start=1, end=2) == "ä".encode()
    found.metadata = {"colour": "blue"}
    found.patch()
    found.reload()
    assert (found.metadata, found.metageneration) == ({"colour": "blue"}, 2)
    assert found.generation == blob.generation
    found.metadata = {"colour": None, "size": "1"}
    found.patch()
    found.reload()
    assert found.metadata == {"size": "1"}
    found.metadata = None
    found.patch()
    found.reload()
    assert found.metadata is None
    found.update()
    assert found.cache_control == "no-store"


def test_preconditions(bucket):
    blob = bucket.blob("once")
    blob.upload_from_string(b"1", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        bucket.blob("once").upload_from_string(b"2", if_generation_match=0)
    with pytest.raises(exceptions.PreconditionFailed):
        blob.delete(if_generation_match=1)
    blob.delete(if_generation_match=blob.generation)
    with pytest.raises(exceptions.NotFound):
        blob.reload()


def test_lists_by_prefix_delimiter_glob_and_page(client, bucket):
    for name in ("a/1", "a/2", "a/b/3", "c", "d.txt"):
        bucket.blob(name).upload_from_string(name)
    assert [b.name for b in client.list_blobs(bucket, prefix="a/")] == ["a/1", "a/2", "a/b/3"]
    listed = client.list_blobs(bucket, prefix="a/", delimiter="/")
    assert [b.name for b in listed] == ["a/1", "a/2"]
    assert listed.prefixes == {"a/b/"}
    pages = client.list_blobs(bucket, page_size=2).pages
    assert [[b.name for b in page] for page in pages] == [["a/1", "a/2"], ["a/b/3", "c"], ["d.txt"]]
    assert [b.name for b in client.list_blobs(bucket, max_results=2)] == ["a/1", "a/2"]
    between = client.list_blobs(bucket, start_offset="a/2", end_offset="d")
    assert [b.name for b in between] == ["a/2", "a/b/3", "c"]
    assert [b.name for b in client.list_blobs(bucket, match_glob="a/*")] == ["a/1", "a/2"]
    for glob, names in {
        "**.txt": ["d.txt"],
        "{c,**/[0-2]}": ["a/1", "a/2", "c"],
        "?": ["c"],
    }.items():
        assert [b.name for b in client.list_blobs(bucket, match_glob=glob)] == names
    some = client.list_blobs(bucket, fields="items(name),nextPageToken")
    assert [b.name for b in some] == ["a/1", "a/2", "a/b/3", "c", "d.txt"]


def test_large_files_go_and_come_in_pieces(bucket, tmp_path):
    content = os.urandom(3 * 2**20 + 17)
    blob = bucket.blob("large", chunk_size=2**20)
    blob.upload_from_file(io.BytesIO(content), size=len(content), checksum="crc32c")
    assert bucket.get_blob("large").size == len(content)
    blob.download_to_filename(tmp_path / "whole", checksum="crc32c")
    assert (tmp_path / "whole").read_bytes() == content
    unknown = bucket.blob("written")
    with unknown.open("wb", chunk_size=2**18) as file:
        file.write(content)
    with unknown.open("rb") as file:
        file.seek(2**20)
        assert file.read(100) == content[2**20 : 2**20 + 100]
    pieces = str(tmp_path / "pieces")
    transfer_manager.download_chunks_concurrently(
        unknown, pieces, chunk_size=2**20, worker_type=transfer_manager.THREAD, max_workers=4
    )
    assert (tmp_path / "pieces").read_bytes() == content


def test_copies_and_bulk_deletes(client, bucket):
    one, two = bucket.blob("one"), bucket.blob("two")
    one.metadata = {"k": "v"}
    one.upload_from_string(b"1", content_type="text/plain")
    two.upload_from_string(b"2")
    copy = bucket.copy_blob(one, bucket, "copy")
    assert (copy.download_as_bytes(), copy.metadata, copy.content_type) == (
        b"1", {"k": "v"}, "text/plain",
    )  # fmt: skip
    _, rewritten, total = bucket.blob("rewritten").rewrite(two)
    assert rewritten == total == 1
    renamed = bucket.rename_blob(one, "renamed")
    assert (renamed.name, one.exists()) == ("renamed", False)
    bucket.delete_blobs([copy, two, renamed, bucket.blob("rewritten")])
    assert list(client.list_blobs(bucket)) == []
