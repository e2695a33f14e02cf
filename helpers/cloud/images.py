"""The images a project needs, built by Cloud Build, kept in Artifact Registry.

The environment image is named by a hash of everything in it (Dockerfile, pinned requirements,
this package), so a second submit builds nothing. The notebook and its parameters are not in it.
"""

import gzip
import hashlib
import io
import os
import re
import tarfile
import time

from helpers.cloud import accounts, buckets, packages, repository, storage
from helpers.cloud.client import Session
from helpers.cloud.folders import PACKAGE
from helpers.cloud.links import console
from helpers.cloud.names import DISTRIBUTION
from helpers.errors import CloudError, SettingError

UNDER_WAY = ("PENDING", "QUEUED", "WORKING")

# The newest TensorFlow Serving release on Docker Hub (August 2026); never older than the exporter.
SERVING_VERSION = "2.20.0"
SERVED_NAME = "model"  # TensorFlow Serving's own name for it, part of its routes
SERVING_DOCKERFILE = "FROM tensorflow/serving:{version}\n"
# Docker Hub's official images, through Google's cache, which has no limit on pulls.
BASE = "mirror.gcr.io/library/python:{version}-slim"
ENVIRONMENT_DOCKERFILE = """\
FROM {base}
WORKDIR /app
COPY requirements.txt requirements.txt
RUN pip install --no-cache-dir --no-deps --only-binary=:all: -r requirements.txt
{gpu}COPY colab_to_cloud colab_to_cloud
COPY helpers helpers
ENV PYTHONPATH=/app
ENTRYPOINT ["python", "-m", "helpers.inside.main"]
"""
# The libraries of the GPU, in the ranges that TensorFlow names; all else stays as it is.
GPU = """\
COPY pinned.txt pinned.txt
RUN pip install --no-cache-dir --only-binary=:all: -c pinned.txt tensorflow[and-cuda]=={version}
"""
MORE_DOCKERFILE = """\
FROM {image}
COPY more.txt more.txt
RUN pip install --no-cache-dir -r more.txt
"""
# What a job imports of this package (a contract in pyproject.toml holds it); a change elsewhere
# builds no new image.
JOB = (
    "__init__.py", "errors.py", "connection.py", "notebooks.py", "training.py",
    "cells", "cloud", "inputs", "inside", "learning", "looks", "tensorflow_cloud",
)  # fmt: skip
# What looks like a credential never enters an image, a package or the bucket.
CREDENTIALS = re.compile(
    r"(^|/)(\.env.*|.*\.pem|.*\.p12|.*\.key|.*key.*\.json|.*credential.*|.*secret.*|id_rsa.*"
    r"|\.netrc|\.git|\.ssh|\.config)($|/)",
    re.IGNORECASE,
)


def environment_image(session: Session, *, accelerator: str | None = None, base: str = "") -> str:
    """The image training jobs run in; built when nothing with this content exists yet.

    Args:
        accelerator: with one, TensorFlow and the libraries of the GPU.
        base: image to start from; "" takes the official one of this Python.
    Returns:
        `LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/environment:HASH`
    Raises:
        SettingError: this Python, or a package of it, can't be had there; nothing was made.
        CloudError: the build failed; its last log lines are in the message.
    """
    return ensure(session, "environment", environment_files(accelerator, base))


def with_requirements(session: Session, image: str, wanted: bytes) -> str:
    """An image with more packages than `image` has; the same one where none are wanted."""
    if not wanted.strip():
        return image
    dockerfile = MORE_DOCKERFILE.format(image=image).encode()
    return ensure(session, "environment", {"Dockerfile": dockerfile, "more.txt": wanted})


def environment_files(accelerator: str | None = None, base: str = "") -> dict[str, bytes]:
    """What `environment_image` is made of."""
    base = base or BASE.format(version=packages.python_version())
    listed, gpu = packages.requirements(gpu=bool(accelerator)), ""
    files = {"requirements.txt": listed.encode()}
    if accelerator:
        gpu = GPU.format(version=packages.tensorflow_version())
        files["pinned.txt"] = re.sub(r" --hash=\S+", "", listed).encode()
    files["Dockerfile"] = ENVIRONMENT_DOCKERFILE.format(base=base, gpu=gpu).encode()
    beside = PACKAGE.parent
    for place in [beside / "colab_to_cloud", *(PACKAGE / part for part in JOB)]:
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.suffix in (".py", ".j2"):
                files[path.relative_to(beside).as_posix()] = path.read_bytes()
    return files


def serving_version() -> str:
    """TensorFlow Serving's release; the environment variable SERVING_VERSION names another."""
    return os.environ.get("SERVING_VERSION", SERVING_VERSION)


def serving_image(session: Session) -> str:
    """TensorFlow Serving, copied into the project's own repository."""
    return ensure(session, "serving", serving_files())


def serving_container(image: str) -> dict:
    """How that image serves a model, as the registry keeps it."""
    return {
        "imageUri": image,
        "command": ["/usr/bin/tensorflow_model_server"],
        "args": [
            f"--model_name={SERVED_NAME}",
            "--model_base_path=$(AIP_STORAGE_URI)",
            "--rest_api_port=8080",
            "--port=8500",
            "--file_system_poll_wait_seconds=31540000",
        ],
        "ports": [{"containerPort": 8080}],
        "predictRoute": f"/v1/models/{SERVED_NAME}:predict",
        "healthRoute": f"/v1/models/{SERVED_NAME}",
    }


def serving_files() -> dict[str, bytes]:
    """What `serving_image` is made of."""
    return {"Dockerfile": SERVING_DOCKERFILE.format(version=serving_version()).encode()}


def ensure(session: Session, name: str, files: dict[str, bytes]) -> str:
    """The image made of these files; built only when its content hash is not there yet."""
    refused = [path for path in files if CREDENTIALS.search(path)]
    if refused:
        raise SettingError(
            f"{', '.join(refused)} looks like a credential and stays out of the image."
        )
    buckets.find_bucket(session)
    package = pack(files)
    tag = _tag(package)
    image = f"{session.location}-docker.pkg.dev/{session.project}/{repository.NAME}/{name}:{tag}"
    if is_built(session, name, tag):
        print(f"Image {name}:{tag} is there already; nothing to build.")
        return image
    repository.create(session)
    source = f"images/{name}-{tag}.tgz"
    storage.write_bytes(session, package, f"gs://{session.bucket}/{source}")
    _build(session, image, source)
    return image


def is_built(session: Session, name: str, content: str | dict[str, bytes]) -> bool:
    """Whether the repository holds the image of that tag, or made of these files."""
    tag = content if isinstance(content, str) else _tag(pack(content))
    tags = repository.repositories(session).packages().tags()
    tag_name = f"{repository.resource_name(session)}/packages/{name}/tags/{tag}"
    return session.call(tags.get(name=tag_name), unless=404) is not None


def pack(files: dict[str, bytes]) -> bytes:
    """A .tgz whose bytes depend on nothing but the files."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in sorted(files):
            member = tarfile.TarInfo(path)
            member.size, member.mode = len(files[path]), 0o644
            tar.addfile(member, io.BytesIO(files[path]))
    return gzip.compress(raw.getvalue(), mtime=0)


def _tag(package: bytes) -> str:
    return hashlib.sha256(package).hexdigest()[:16]


def _build(session: Session, image: str, source: str) -> None:
    builds = session.service("cloudbuild").projects().locations().builds()
    steps = [{"name": "gcr.io/cloud-builders/docker", "args": ["build", "-t", image, "."]}]
    body = {
        "source": {"storageSource": {"bucket": session.bucket, "object": source}},
        "steps": steps, "images": [image], "timeout": "1800s", "tags": [DISTRIBUTION],
        "options": {"logging": "CLOUD_LOGGING_ONLY"},
    }  # fmt: skip
    if accounts.find(session, accounts.BUILD_AS):
        body["serviceAccount"] = accounts.name(session, accounts.BUILD_AS)

    def find() -> dict | None:
        made = session.list(builds, "builds", parent=session.parent)
        fine = [build for build in made if build["status"] in (*UNDER_WAY, "SUCCESS")]
        same = (build for build in fine if build.get("images") == [image])
        return next(({"metadata": {"build": build}} for build in same), None)

    started = session.create(builds.create(parent=session.parent, body=body), find)
    build, pause_s, shown = started["metadata"]["build"], 0.1, ""
    name = f"{session.parent}/builds/{build['id']}"
    print(f"Build: {console(session, 'build', build['id'])}")
    start = time.monotonic()
    while build["status"] in UNDER_WAY:
        if build["status"] != shown:
            shown = build["status"]
            print(f"build {build['id'][:8]} {shown} {time.monotonic() - start:.0f} s")
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, 5)
        build = session.call(builds.get(name=name))
    print(f"build {build['id'][:8]} {build['status']} {time.monotonic() - start:.0f} s")
    if build["status"] != "SUCCESS":
        log = f'resource.type="build" AND resource.labels.build_id="{build["id"]}"'
        lines = [entry.get("textPayload", "") for entry in session.log(log)][-20:]
        raise CloudError(
            f"Building {image} ended {build['status']}: {build.get('statusDetail', '')}\n"
            + "\n".join(lines)
        )
