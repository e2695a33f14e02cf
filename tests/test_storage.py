"""gs:// ⇄ files as a notebook uses them; the wire itself is tested in tests/emulator."""

import pytest

from helpers import storage
from helpers.errors import CloudError, NotFoundError, SettingError


@pytest.mark.parametrize("uri", ["local-bucket/x", "gs://", "s3://b/x", ""])
def test_what_is_not_an_address_is_refused(session, uri):
    with pytest.raises(SettingError, match="gs://BUCKET/NAME"):
        storage.read_bytes(session, uri)


def test_a_missing_object_is_named(session, tmp_path):
    with pytest.raises(NotFoundError, match="gs://local-bucket/none does not exist"):
        storage.download_file(session, "gs://local-bucket/none", tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_delete_takes_one_or_a_folder_and_may_be_repeated(session):
    place = "gs://local-bucket/to-delete"
    for name in ("d/1", "d/2", "dd"):
        storage.write_bytes(session, b"x", f"{place}/{name}")
    assert storage.delete(session, f"{place}/d/") == 2
    assert storage.delete(session, f"{place}/dd") == 1
    assert storage.delete(session, f"{place}/dd") == 1
    assert storage.list_uris(session, f"{place}/d") == []


def test_empty_files_travel(session, tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    uri = storage.upload_file(session, tmp_path / "empty", "gs://local-bucket/empty")
    assert storage.download_file(session, uri, tmp_path / "back").read_bytes() == b""


def test_a_damaged_object_is_never_given_out(session, tmp_path, monkeypatch):
    uri = storage.write_bytes(session, b"sound", "gs://local-bucket/sound")
    monkeypatch.setattr(storage, "_crc32c", lambda path: "other")
    with pytest.raises(CloudError, match="arrived damaged"):
        storage.download_file(session, uri, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
