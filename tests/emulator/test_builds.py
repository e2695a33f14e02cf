"""Builds read the Dockerfile, check the requirements and push; no Docker."""

import sys
from importlib import metadata
from pathlib import Path

import pytest

from helpers.cloud import buckets, images, storage
from helpers.cloud.client import Session
from helpers.emulator.front.calls import Cloud
from helpers.emulator.services.builds import image
from helpers.emulator.state import State
from helpers.errors import CloudError, SettingError


@pytest.fixture
def session(emulator) -> Session:
    buckets.create_bucket(emulator.session)
    return emulator.session


def build(session: Session, name: str, dockerfile: str, **files: str) -> str:
    named = {path: text.encode() for path, text in files.items()}
    return images.ensure(session, name, {"Dockerfile": dockerfile.encode(), **named})


def test_an_image_is_what_its_dockerfile_says(session, emulator):
    uri = build(
        session, "said",
        'FROM python:3.11\nARG X=1\nENV A=b C="d e"\nWORKDIR /app\n# why\nCOPY src/ ./\n'
        'COPY one.txt two.txt\nENTRYPOINT ["python", \\\n "/app/main.py"]\n'
        'CMD ["--x=/app/two.txt"]\n',
        **{"src/main.py": "print(1)", "one.txt": "1"},
    )  # fmt: skip
    made = image(Cloud(emulator.folder, State(emulator.folder / "state.sqlite3")), uri)
    assert (made.base, made.workdir) == ("python:3.11", "/app")
    assert made.env == {"A": "b", "C": "d e"}
    assert made.entrypoint == ["python", "/app/main.py"]
    assert Path(made.inside("/app/two.txt")).read_text() == "1"
    assert made.inside("--x=/app/two.txt") == f"--x={made.root}/app/two.txt"
    assert made.inside("/usr/bin/env") == "/usr/bin/env"


def test_the_same_content_is_built_once(session, capsys):
    first = build(session, "once", "FROM python:3.11\n")
    capsys.readouterr()
    assert build(session, "once", "FROM python:3.11\n") == first
    assert "nothing to build" in capsys.readouterr().out
    assert build(session, "once", "FROM python:3.12\n") != first


def test_requirements_this_python_has_not_fail_the_build_with_its_log(session):
    text = f"numpy==0.1\nno-such-package==1\npandas=={metadata.version('pandas')}\n"
    with pytest.raises(CloudError, match="FAILURE") as caught:
        build(
            session, "unmet",
            "FROM python:3.11\nCOPY r.txt r.txt\nRUN pip install -r r.txt\n", **{"r.txt": text},
        )  # fmt: skip
    said = str(caught.value)
    assert "numpy==0.1 (installed:" in said
    assert "no-such-package==1 (not installed)" in said
    assert "pandas" not in said.split("satisfy:")[-1].split("\n")[0]
    assert ".".join(map(str, sys.version_info[:3])) in said


@pytest.mark.parametrize(
    ("dockerfile", "said"),
    [
        ("COPY a b\n", "must start with FROM"),
        ("FROM python:3.11\nCOPY missing there\n", "missing is not in the source"),
        ("FROM a\nFROM b\n", "several stages"),
        ("FROM python:3.11\nWORKDIR ../../..\nCOPY Dockerfile ../../../x\n", "leaves the image"),
    ],
)
def test_dockerfiles_that_cannot_be_built(session, dockerfile, said):
    with pytest.raises(CloudError, match=said):
        build(session, "bad", dockerfile)


@pytest.mark.parametrize("name", ["key.json", ".env", "a/credentials.txt", "id_rsa", "x.pem"])
def test_what_looks_like_a_credential_is_refused(session, name):
    with pytest.raises(SettingError, match="looks like a credential"):
        images.ensure(session, "leak", {"Dockerfile": b"FROM x\n", name: b"secret"})


def test_archive_members_that_escape_fail_the_build(session, emulator):
    import io
    import tarfile

    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        member = tarfile.TarInfo("../../../escaped")
        member.size = 1
        tar.addfile(member, io.BytesIO(b"x"))
    storage.write_bytes(session, raw.getvalue(), "gs://local-bucket/evil.tgz")
    body = {
        "source": {"storageSource": {"bucket": "local-bucket", "object": "evil.tgz"}},
        "steps": [{"name": "gcr.io/cloud-builders/docker", "args": ["build", "."]}],
    }
    builds = session.service("cloudbuild").projects().locations().builds()
    with pytest.raises(CloudError, match="can't be unpacked"):
        session.wait(session.call(builds.create(parent=session.parent, body=body)))
    assert not list(emulator.folder.rglob("escaped"))
