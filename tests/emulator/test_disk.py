"""A full disk, a folder that can't be written, a damaged database: said clearly, nothing harmed."""

import os
import resource
import sqlite3

import pytest

from helpers import storage
from helpers.cloud import buckets
from helpers.errors import CloudError
from tests.emulator.conftest import start, until
from tests.emulator.test_app import JOBS, command

LIMIT = 2**20


@pytest.fixture
def small_disk(tmp_path, monkeypatch):
    """A local cloud whose files can't grow past a megabyte: writes fail in the middle, as they do
    on a full disk."""
    monkeypatch.setattr("helpers.cloud.client.RETRIES", 0)
    running = start(tmp_path / "state")
    buckets.create_bucket(running.session)
    storage.write_bytes(running.session, b"sound", "gs://local-bucket/sound")
    resource.prlimit(running.process.pid, resource.RLIMIT_FSIZE, (LIMIT, LIMIT))
    yield running
    if running.process.poll() is None:
        running.stop()


@pytest.mark.parametrize("size", [2 * LIMIT, 10 * LIMIT], ids=["simple", "resumable"])
def test_an_object_that_does_not_fit_is_refused_and_leaves_nothing(small_disk, tmp_path, size):
    large = tmp_path / "large.bin"
    large.write_bytes(os.urandom(size))
    for name in ("large", "sound"):
        with pytest.raises(CloudError, match="can't store it: File too large") as caught:
            storage.upload_file(small_disk.session, large, f"gs://local-bucket/{name}")
        assert caught.value.status == 503
    listed = storage.list_uris(small_disk.session, "gs://local-bucket/")
    assert listed == ["gs://local-bucket/sound"]
    assert storage.read_bytes(small_disk.session, "gs://local-bucket/sound") == b"sound"
    storage.write_bytes(small_disk.session, b"fits", "gs://local-bucket/fits")


def test_a_copy_that_does_not_fit_is_refused_and_leaves_nothing(small_disk):
    large = small_disk.folder / "buckets" / "local-bucket" / "large"
    large.write_bytes(b"x" * 2 * LIMIT)
    path = "/storage/v1/b/local-bucket/o/large/rewriteTo/b/local-bucket/o/copy"
    status, answer = small_disk.request("POST", path, json_body={})
    assert status == 503, answer
    assert "can't store it: File too large" in answer["error"]["message"]
    assert not list((small_disk.folder / "uploads").iterdir())
    assert not (large.parent / "copy").exists()


def test_a_database_that_can_not_grow_loses_nothing_acknowledged(small_disk, tmp_path):
    """Writes go on until one is refused; what was acknowledged before is there afterwards."""
    endpoints, kept = JOBS.replace("customJobs", "endpoints"), []
    for number in range(1000):
        body = {"displayName": f"e{number}", "description": "x" * 20_000}
        status, answer = small_disk.request(
            "POST", f"{endpoints}?endpointId=e{number}", json_body=body
        )
        if status != 200:
            break
        kept.append(f"e{number}")
    assert status == 503, answer
    assert "can't store it" in answer["error"]["message"]
    assert small_disk.request("GET", f"{endpoints}/{kept[-1]}")[0] == 200
    small_disk.kill()
    again = start(small_disk.folder)
    try:
        there = [again.request("GET", f"{endpoints}/{name}")[0] for name in kept]
        assert set(there) == {200}
        assert again.request("POST", endpoints, json_body={"displayName": "more"})[0] == 200
    finally:
        again.stop()


@pytest.mark.parametrize("spoil", ["head", "middle", "end"])
def test_a_damaged_database_is_named_and_left_as_it_is(tmp_path, spoil):
    running = start(tmp_path / "state")
    endpoints = JOBS.replace("customJobs", "endpoints")
    for _ in range(30):
        body = {"displayName": "e", "description": "x" * 3000}
        assert running.request("POST", endpoints, json_body=body)[0] == 200
    running.stop()
    path = tmp_path / "state" / "state.sqlite3"
    database = sqlite3.connect(path)
    database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    size, damaged = path.stat().st_size, bytearray(path.read_bytes())
    place = {"head": 0, "middle": size // 2, "end": size - 4096}[spoil]
    damaged[place : place + 4096] = b"\xff" * 4096
    path.write_bytes(damaged)
    said = command("serve", "--state", str(tmp_path / "state"))
    assert said.returncode == 1, said
    assert f"can't use {path}" in said.stderr
    assert "move the file away" in said.stderr
    assert path.read_bytes() == damaged
    path.unlink()
    moved = start(tmp_path / "state")
    moved.stop()


def test_a_database_that_another_program_holds(tmp_path):
    running = start(tmp_path / "state")
    running.stop()
    other = sqlite3.connect(tmp_path / "state" / "state.sqlite3", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    said = command("serve", "--state", str(tmp_path / "state"))
    other.close()
    assert said.returncode == 1
    assert "database is locked" in said.stderr


def test_a_database_that_can_not_be_opened_is_named(tmp_path):
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "state.sqlite3").mkdir()  # even root can't open it
    said = command("serve", "--state", str(folder))
    assert said.returncode == 1
    assert f"can't use {folder / 'state.sqlite3'}" in said.stderr
    assert "LOCAL_CLOUD_DIR" in said.stderr


def test_a_second_local_cloud_on_the_folder_harms_nothing(tmp_path):
    running = start(tmp_path / "state")
    buckets.create_bucket(running.session)
    storage.write_bytes(running.session, b"sound", "gs://local-bucket/sound")
    said = [command("serve", "--state", str(running.folder)) for _ in range(2)]
    assert {one.returncode for one in said} == {1}
    assert all("Another local cloud runs" in one.stderr for one in said)
    assert storage.read_bytes(running.session, "gs://local-bucket/sound") == b"sound"
    running.kill()
    again = start(running.folder)
    until(lambda: storage.read_bytes(again.session, "gs://local-bucket/sound") == b"sound")
    again.stop()
