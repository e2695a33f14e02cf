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
from tests.emulator.conftest import until


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


def built(emulator, name: str, dockerfile: str, body: dict, path: str = "") -> dict:
    """A build as it ended, of a source with that Dockerfile and a second one below app/."""
    session, place = emulator.session, f"gs://local-bucket/{name}.tgz"
    files = {"Dockerfile": b"FROM nothing\n", "app/Dockerfile.train": dockerfile.encode()}
    storage.write_bytes(session, images.pack(files), place)
    source = {"storageSource": {"bucket": "local-bucket", "object": f"{name}.tgz"}}
    path = path or f"{emulator.parent}/builds"
    status, answer = emulator.request("POST", f"/v1/{path}", json_body={"source": source} | body)
    assert status == 200, answer
    place = f"/v1/{answer['metadata']['build']['name']}"
    ended = ("SUCCESS", "FAILURE")
    return until(lambda: (b := emulator.request("GET", place)[1])["status"] in ended and b)


def steps(*commands: str) -> dict:
    name = "gcr.io/cloud-builders/docker"
    return {"steps": [{"name": name, "args": command.split()} for command in commands]}


def test_a_build_is_what_its_steps_say(session, emulator):
    """Of its steps: the Dockerfile, the context, the arguments, what is pushed; of its
    substitutions: the values in steps and images."""
    repository = f"{emulator.parent}/repositories"
    emulator.request("POST", f"/v1/{repository}?repositoryId=said", json_body={"format": "DOCKER"})
    head = "us-central1-docker.pkg.dev/$PROJECT_ID/said"
    asked = steps(
        f"build -t {head}/one:${{_TAG}} --build-arg COLOUR=$_COLOUR -f app/Dockerfile.train app",
        f"push {head}/one:${{_TAG}}",
    )
    asked |= {"substitutions": {"_TAG": "v7", "_COLOUR": "red"}, "images": [f"{head}/two:$_TAG"]}
    dockerfile = "FROM python:3.11\nARG COLOUR=blue\nARG SIZE=7\nENV A=$COLOUR-$SIZE\n"
    made = built(emulator, "steps", dockerfile, asked)
    assert made["status"] == "SUCCESS", made
    assert made["results"]["images"] == [{"name": "us-central1-docker.pkg.dev/local/said/two:v7"}]
    cloud = Cloud(emulator.folder, State(emulator.folder / "state.sqlite3"))
    for name in ("one", "two"):
        found = image(cloud, f"us-central1-docker.pkg.dev/local/said/{name}:v7")
        assert found.env == {"A": "red-7"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": [{"name": "gcr.io/cloud-builders/gcloud", "args": ["version"]}]},
        {"steps": [{"name": "python:3.11", "args": ["build", "."]}]},
        steps("run x"),
        steps("push x"),
        steps("build --squash ."),
        steps("build .", "build ."),
    ],
)
def test_steps_that_are_no_build_of_one_image_are_not_emulated(session, emulator, wrong):
    source = {"storageSource": {"bucket": "local-bucket", "object": "x.tgz"}}
    status, answer = emulator.request(
        "POST", f"/v1/{emulator.parent}/builds", json_body={"source": source} | wrong
    )
    assert (status, "not emulated" in answer["error"]["message"]) == (501, True), answer


def test_a_tag_that_is_immutable_is_given_once(session, emulator):
    """immutableTags of a repository whose format is DOCKER and whose mode is the standard one."""
    path, about = f"/v1/{emulator.parent}/repositories", {"format": "DOCKER"}
    fixed = about | {"dockerConfig": {"immutableTags": True}, "mode": "STANDARD_REPOSITORY"}
    assert emulator.request("POST", f"{path}?repositoryId=fixed", json_body=fixed)[0] == 200
    asked = steps("build -f app/Dockerfile.train .")
    asked["images"] = ["us-central1-docker.pkg.dev/local/fixed/one:v1"]
    assert built(emulator, "fixed", "FROM python:3.11\n", asked)["status"] == "SUCCESS"
    again = built(emulator, "fixed", "FROM python:3.12\n", asked)
    assert (again["status"], "immutable" in again["statusDetail"]) == ("FAILURE", True)
    for wrong in (about | {"mode": "REMOTE_REPOSITORY"}, {"format": "PYTHON"}):
        assert emulator.request("POST", f"{path}?repositoryId=x1", json_body=wrong)[0] == 501


def test_a_build_is_found_by_either_path(session, emulator):
    asked = steps("build -f app/Dockerfile.train .")
    legacy = f"projects/local/builds?parent={emulator.parent}"
    made = built(emulator, "either", "FROM python:3.11\n", asked, legacy)
    assert made["name"].startswith(f"{emulator.parent}/builds/")
    by_name = emulator.request("GET", f"/v1/projects/local/builds/x?name={made['name']}")[1]
    found = emulator.request("GET", f"/v1/projects/local/builds?parent={emulator.parent}")[1]
    assert by_name == made
    assert made in found["builds"]
