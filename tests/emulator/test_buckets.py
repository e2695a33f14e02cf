"""Cloud Storage: what a client stores is a plain file, whole or not there at all."""

import base64
import hashlib
import json
import os
import uuid

import google_crc32c
import httplib2
import pytest

from helpers import storage
from helpers.cloud import buckets
from helpers.emulator.state import State
from helpers.errors import CloudError


@pytest.fixture
def bucket(emulator) -> str:
    name = f"b-{uuid.uuid4().hex[:12]}"
    body = {"name": name, "location": "us-central1"}
    status, made = emulator.request("POST", "/storage/v1/b?project=local", json_body=body)
    assert status == 200, made
    return name


def put(emulator, bucket: str, name: str, content: bytes, query: str = "") -> tuple[int, dict]:
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={name}{query}"
    return emulator.request("POST", path, body=content, headers={"Content-Type": "text/plain"})


def test_an_object_is_a_plain_file_with_its_checksums(emulator, bucket):
    content = os.urandom(1000)
    status, made = put(emulator, bucket, "a%2Fb.bin", content)
    assert status == 200
    assert (emulator.folder / "buckets" / bucket / "a" / "b.bin").read_bytes() == content
    assert made["size"] == "1000"
    assert made["md5Hash"] == base64.b64encode(hashlib.md5(content).digest()).decode()
    assert made["crc32c"] == base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
    assert emulator.request("GET", f"/storage/v1/b/{bucket}/o/a%2Fb.bin")[1] == made


def test_a_file_written_by_another_program_is_an_object(emulator, bucket):
    path = emulator.folder / "buckets" / bucket / "x" / "y.txt"
    path.parent.mkdir()
    path.write_text("one")
    first = emulator.request("GET", f"/storage/v1/b/{bucket}/o/x%2Fy.txt")[1]
    path.write_text("other")
    second = emulator.request("GET", f"/storage/v1/b/{bucket}/o/x%2Fy.txt")[1]
    assert (first["size"], second["size"]) == ("3", "5")
    assert int(second["generation"]) > int(first["generation"])


@pytest.mark.parametrize("wanted", [(0, 4), (3, 3), (5, 999)])
def test_ranges(emulator, bucket, wanted):
    content = b"0123456789"
    put(emulator, bucket, "r", content)
    start, stop = wanted
    answer, got = httplib2.Http().request(
        f"{emulator.url}/storage/v1/b/{bucket}/o/r?alt=media",
        headers={"Authorization": f"Bearer {emulator.token}", "Range": f"bytes={start}-{stop}"},
    )
    assert answer.status == 206
    assert got == content[start : stop + 1]
    assert answer["content-range"] == f"bytes {start}-{min(stop, 9)}/10"


def test_preconditions_protect_what_is_there(emulator, bucket):
    assert put(emulator, bucket, "once", b"1", "&ifGenerationMatch=0")[0] == 200
    status, error = put(emulator, bucket, "once", b"2", "&ifGenerationMatch=0")
    assert (status, error["error"]["errors"][0]["reason"]) == (412, "conditionNotMet")
    status, _ = emulator.request("DELETE", f"/storage/v1/b/{bucket}/o/once?ifGenerationMatch=1")
    assert status == 412
    assert (emulator.folder / "buckets" / bucket / "once").read_bytes() == b"1"


@pytest.mark.parametrize(
    ("header", "name"),
    [({"X-Goog-Hash": "crc32c=AAAAAA=="}, "crc32c"),
     ({"X-Goog-Hash": "md5=AAAAAAAAAAAAAAAAAAAAAA=="}, "md5Hash"),
     ({"Content-MD5": "AAAAAAAAAAAAAAAAAAAAAA=="}, "md5Hash")],
)  # fmt: skip
def test_a_wrong_checksum_stores_nothing(emulator, bucket, header, name):
    path = f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name=bad"
    status, error = emulator.request("POST", path, body=b"abc", headers=header)
    assert status == 400
    assert name in error["error"]["message"]
    assert emulator.request("GET", f"/storage/v1/b/{bucket}/o/bad")[0] == 404


def test_multipart_keeps_metadata_and_odd_bytes(emulator, bucket):
    content = b"\r\n--x\r\n\r\n--" + bytes(range(256))
    about = {"name": "m", "contentType": "application/x-odd", "metadata": {"k": "v"}}
    body = (
        b"--sep\r\ncontent-type: application/json\r\n\r\n" + json.dumps(about).encode()
        + b"\r\n--sep\r\ncontent-type: text/plain\r\n\r\n" + content + b"\r\n--sep--"
    )  # fmt: skip
    status, made = emulator.request(
        "POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=multipart", body=body,
        headers={"Content-Type": 'multipart/related; boundary="sep"'},
    )  # fmt: skip
    assert status == 200, made
    assert (made["metadata"], made["contentType"]) == ({"k": "v"}, "application/x-odd")
    assert (emulator.folder / "buckets" / bucket / "m").read_bytes() == content


def test_a_resumable_upload_continues_where_it_stopped(start_emulator):
    """Half of it, kill -9, a probe, the rest: the object is whole, and never half visible."""
    first = start_emulator()
    buckets.create_bucket(first.session)
    content = os.urandom(600_000)
    headers = {"Authorization": f"Bearer {first.token}"}
    answer, _ = httplib2.Http().request(
        f"{first.url}/upload/storage/v1/b/local-bucket/o?uploadType=resumable&name=big",
        "POST", "{}", headers | {"Content-Type": "application/json"},
    )  # fmt: skip
    address = answer["location"]
    http = httplib2.Http()
    http.redirect_codes -= {308}
    part = headers | {"Content-Range": "bytes 0-262143/600000"}
    answer, _ = http.request(address, "PUT", content[:262144], part)
    assert (answer.status, answer["range"]) == (308, "bytes=0-262143")
    first.kill()
    second = start_emulator()
    assert second.url == first.url
    assert storage.list_uris(second.session, "gs://local-bucket/") == []
    probe = headers | {"Content-Range": "bytes */600000"}
    answer, _ = http.request(address, "PUT", "", probe)
    assert (answer.status, answer["range"]) == (308, "bytes=0-262143")
    rest = headers | {"Content-Range": "bytes 262144-599999/600000"}
    answer, made = http.request(address, "PUT", content[262144:], rest)
    assert answer.status == 200
    assert storage.read_bytes(second.session, "gs://local-bucket/big") == content
    again, made_again = http.request(address, "PUT", "", probe)
    assert (again.status, json.loads(made_again)) == (200, json.loads(made))


def test_listing_with_prefix_delimiter_and_pages(emulator, bucket):
    for name in ("a/1", "a/2", "a/b/3", "c"):
        put(emulator, bucket, name.replace("/", "%2F"), b"x")
    path = f"/storage/v1/b/{bucket}/o"
    top = emulator.request("GET", f"{path}?delimiter=/")[1]
    assert ([i["name"] for i in top["items"]], top["prefixes"]) == (["c"], ["a/"])
    below = emulator.request("GET", f"{path}?prefix=a/&delimiter=/")[1]
    assert [i["name"] for i in below["items"]] == ["a/1", "a/2"]
    assert below["prefixes"] == ["a/b/"]
    names, token = [], ""
    while True:
        page = emulator.request("GET", f"{path}?maxResults=1&pageToken={token}")[1]
        names += [item["name"] for item in page["items"]]
        token = page.get("nextPageToken", "")
        if not token:
            break
    assert names == ["a/1", "a/2", "a/b/3", "c"]


@pytest.mark.parametrize("name", ["goog-x1", "my-google-b", "192.168.1.1", "A", "a..b"])
def test_names_that_no_bucket_may_have(emulator, name):
    body = {"name": name, "location": "us-central1"}
    status, answer = emulator.request("POST", "/storage/v1/b?project=local", json_body=body)
    assert (status, name in answer["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    "labels", [{"UPPER": "x"}, {"x": "Value"}, {"k" * 64: ""}, {f"k{i}": "" for i in range(65)}]
)
def test_labels_of_a_bucket_are_as_everywhere(emulator, bucket, labels):
    path = f"/storage/v1/b/{bucket}"
    assert emulator.request("PATCH", path, json_body={"labels": labels})[0] == 400
    body = {"name": f"{bucket}-2", "location": "us-central1", "labels": labels}
    assert emulator.request("POST", "/storage/v1/b?project=local", json_body=body)[0] == 400
    assert emulator.request("PATCH", path, json_body={"labels": {"fine": "so-1"}})[0] == 200


@pytest.mark.parametrize(
    ("binding", "status"),
    [
        ({"role": "roles/viewer", "members": ["bogus"]}, 400),
        ({"role": "roles/viewer", "members": ["user:nobody"]}, 400),
        ({"role": "viewer", "members": ["user:a@b.c"]}, 400),
        ({"role": "projects/p/roles/own", "members": ["user:a@b.c", "allUsers"]}, 200),
        ({"role": "roles/viewer", "members": ["principalSet://iam.googleapis.com/x/*"]}, 200),
    ],
)
def test_roles_and_members_are_written_as_google_wants_them(emulator, bucket, binding, status):
    body = {"bindings": [binding]}
    assert emulator.request("PUT", f"/storage/v1/b/{bucket}/iam", json_body=body)[0] == status
    account = emulator.request("POST", "/v1/projects/local/serviceAccounts",
                               json_body={"accountId": f"a{bucket[:20]}"})[1]["name"]  # fmt: skip
    asked = {"policy": body}
    found, _ = emulator.request("POST", f"/v1/{account}:setIamPolicy", json_body=asked)
    assert found == status


def test_a_page_has_at_most_a_thousand(emulator, bucket):
    folder = emulator.folder / "buckets" / bucket
    for number in range(1003):
        (folder / f"{number:04}").touch()
    path = f"/storage/v1/b/{bucket}/o?maxResults=5000"
    first = emulator.request("GET", path)[1]
    rest = emulator.request("GET", f"{path}&pageToken={first['nextPageToken']}")[1]
    assert (len(first["items"]), len(rest["items"])) == (1000, 3)


@pytest.mark.parametrize(
    "name",
    ["..%2F..%2Fescape", "a%2F..%2F..%2F..%2Fx", "%2Fetc%2Fx", "a%2F%2Fb", "x" * 300, "a%00b"],
)
def test_names_that_are_not_files_are_refused(emulator, bucket, name):
    status, error = put(emulator, bucket, name, b"x")
    assert status == 400
    assert "Object name" in error["error"]["message"]


def test_a_folder_that_was_listed_before_it_was_there_is_listed_again(emulator, bucket):
    path = f"/storage/v1/b/{bucket}/o?prefix=model/"
    assert emulator.request("GET", path)[1].get("items", []) == []
    put(emulator, bucket, "model%2F1%2Fsaved_model.pb", b"new")
    assert [item["name"] for item in emulator.request("GET", path)[1]["items"]] == [
        "model/1/saved_model.pb"
    ]


def test_a_bucket_goes_only_when_it_is_empty(emulator, bucket):
    put(emulator, bucket, "deep%2Fx", b"1")
    assert emulator.request("DELETE", f"/storage/v1/b/{bucket}")[0] == 409
    assert emulator.request("DELETE", f"/storage/v1/b/{bucket}/o/deep%2Fx")[0] == 204
    assert not (emulator.folder / "buckets" / bucket / "deep").exists()
    assert emulator.request("DELETE", f"/storage/v1/b/{bucket}")[0] == 204
    assert emulator.request("GET", f"/storage/v1/b/{bucket}")[0] == 404


def test_helpers_carry_folders_both_ways(emulator, bucket, tmp_path):
    for name in ("saved_model.pb", "variables/v.index"):
        path = tmp_path / "model" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.urandom(100))
    uri = storage.upload_folder(emulator.session, tmp_path / "model", f"gs://{bucket}/m")
    copy = storage.download_folder(emulator.session, uri, tmp_path / "copy")
    for name in ("saved_model.pb", "variables/v.index"):
        assert (copy / name).read_bytes() == (tmp_path / "model" / name).read_bytes()
    times = {
        name: emulator.request("GET", f"/storage/v1/b/{bucket}/o/m%2F{name}")[1]["generation"]
        for name in ("saved_model.pb", "variables%2Fv.index")
    }
    assert int(times["saved_model.pb"]) > int(times["variables%2Fv.index"])


def test_a_large_file_goes_up_in_chunks_and_comes_back(emulator, bucket, tmp_path, capsys):
    (tmp_path / "big").write_bytes(os.urandom(9 * 2**20))
    storage.upload_file(emulator.session, tmp_path / "big", f"gs://{bucket}/big")
    storage.download_file(emulator.session, f"gs://{bucket}/big", tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == (tmp_path / "big").read_bytes()
    assert "upload big" in capsys.readouterr().out


def test_a_missing_bucket_says_so(emulator, tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(CloudError, match="bucket does not exist"):
        storage.upload_file(emulator.session, tmp_path / "f", "gs://no-such-bucket/f")


def test_what_an_older_version_kept_is_opened(start_emulator, tmp_path):
    """A bucket as it was kept before it had a generation; the file beside it is its object."""
    older = {
        "kind": "storage#bucket", "id": "older-bucket", "storageClass": "STANDARD",
        "metageneration": "3", "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": True}},
        "etag": "CAE=", "name": "older-bucket", "location": "US-CENTRAL1", "labels": {"of": "me"},
        "timeCreated": "2026-11-26T08:00:00.000000Z", "updated": "2026-11-26T08:00:00.000000Z",
        "projectNumber": "204653058963",
    }  # fmt: skip
    folder = tmp_path / "state"
    (folder / "buckets" / "older-bucket" / "a").mkdir(parents=True)
    (folder / "buckets" / "older-bucket" / "a" / "b.txt").write_bytes(b"kept")
    state = State(folder / "state.sqlite3")
    state.put("bucket", "b/older-bucket", older, parent="local")
    state.close()
    running = start_emulator()
    for query in ("", "?ifMetagenerationMatch=3"):
        status, found = running.request("GET", f"/storage/v1/b/older-bucket{query}")
        assert status == 200, found
    same = {key: older[key] for key in ("labels", "timeCreated", "updated", "metageneration")}
    assert found | same == found
    assert found["locationType"] == "region"
    assert running.request("GET", "/storage/v1/b?project=local")[1]["items"] == [found]
    assert storage.read_bytes(running.session, "gs://older-bucket/a/b.txt") == b"kept"
    storage.write_bytes(running.session, b"new", "gs://older-bucket/a/b.txt")
    assert storage.read_bytes(running.session, "gs://older-bucket/a/b.txt") == b"new"
    running.kill()
    assert start_emulator().request("GET", "/storage/v1/b/older-bucket")[1] == found
