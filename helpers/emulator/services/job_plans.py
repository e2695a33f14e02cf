"""What the replicas of a training job are given: command, environment, addresses, packages."""

import json
import os
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

from helpers.emulator.front import callers, discovery, honoured_fields
from helpers.emulator.front.calls import ApiError, Cloud, project_number
from helpers.emulator.services import buckets, builds, environments, logs, nursery, ports
from helpers.emulator.services.replicas import Replica, grace_s

SEARCH = r"\$PATH\b|\$\{PATH\}"  # what a Dockerfile's ENV adds to
POOLS = ("chief", "worker", "ps", "evaluator")
ENTRY = "helpers.inside.main"  # what runs a notebook: in a process that this one starts
# Images whose work this machine's own Python and packages can do.
PYTHON_IMAGE = re.compile(
    r"(((docker|mirror\.gcr)\.io/)?(library/)?(tensorflow/tensorflow|python)|[a-z]+-docker\.pkg\.dev/vertex-ai/"
    r"training/.+|gcr\.io/(cloud-aiplatform/training|deeplearning-platform-release)/.+)(:[\w.-]+)?"
)


def wants_tensorflow(cloud: Cloud, spec: dict) -> bool:
    """Whether an image of the job has it.

    Raises:
        ApiError: an image can't be had.
    """
    images = [_image(cloud, _uri(pool)) for pool in filter(None, spec["workerPoolSpecs"])]
    views = (environments.view(cloud, _packages(image)) for image in images)
    return any(map(environments.has_tensorflow, views))


def plan(
    cloud: Cloud, name: str, spec: dict, replicas: list[Replica], who: callers.Caller
) -> tuple[list[dict], str]:
    """The supervisor's spec of every replica, and what the job's log is told first.

    Args:
        who: the job itself, when its processes call.
    Raises:
        ApiError: an image or a package can't be had.
    """
    addresses: dict[str, list[str]] = {}
    for replica, port in zip(replicas, ports.free(len(replicas)), strict=True):
        addresses.setdefault(f"workerpool{replica.pool}", []).append(f"127.0.0.1:{port}")
    stored = cloud.folder / "buckets"
    specs, said = [], {}
    for replica in replicas:
        pool = spec["workerPoolSpecs"][replica.pool]
        machine = pool.get("machineSpec", {}).get("machineType", "machine")
        said[f"{machine} is not emulated; this machine has {os.cpu_count()} cores."] = True
        task = pool.get("containerSpec") or pool["pythonPackageSpec"]
        image = _image(cloud, _uri(pool))
        if not image.root:
            said[f"{image.base}: this machine's Python {sys.version.split()[0]} runs it."] = True
        own, image = _own(cloud, replica.home, image)
        env = own.variables | {
            key: ":".join(
                map(image.inside, re.sub(SEARCH, own.variables["PATH"], value).split(":"))
            )
            for key, value in image.env.items()
        }
        env |= _environment(cloud, name, spec, replica, addresses)
        env |= callers.variables(cloud) | {"LOCAL_CLOUD_DIR": _as_client(cloud, replica.home, who)}
        if "containerSpec" in pool:
            commands = [_command(image, task, own.python)]
        else:
            commands = _package_commands(cloud, task, own.python)
        env |= {var["name"]: _gcs(cloud, var.get("value", "")) for var in task.get("env", [])}
        mounted = {"write": [replica.home.parent, stored], "shown_as": {"/gcs": stored}}
        commands = [[_gcs(cloud, word) for word in command] for command in commands]
        specs.append({
            "commands": [own.hidden(command, **mounted) for command in commands], "env": env,
            "cwd": image.inside(image.workdir) if image.root else str(replica.home / "work"),
            "log": f"{logs.folder(cloud, 'ml_job', name) / replica.home.name}.jsonl",
            "grace_s": grace_s(), "fork": _fork(cloud, own, commands[-1], env, mounted),
        })  # fmt: skip
    known = discovery.schemas("aiplatform.v1")
    ignored = honoured_fields.without_effect(known, "GoogleCloudAiplatformV1CustomJobSpec", spec)
    listed = ", ".join(sorted(ignored - {"machineType"}))  # which every job has
    return specs, "\n".join([*said, *([f"Accepted without effect: {listed}."] if listed else [])])


def _fork(
    cloud: Cloud, own: environments.Environment, command: list[str], env: dict, mounted: dict
) -> dict | None:
    """What a replica's last program is as a fork; None where that might make a difference."""
    ours = command[0] == own.python and re.match(r"-m$|[^-]", "".join(command[1:2]))
    brings = nursery.POSSIBLE and environments.has_tensorflow(own.view)
    if not (ours and brings) or nursery.late(env):
        return None
    sandbox = own.sandbox(**mounted, read=[nursery.view(cloud)])
    return {"command": command, "sandbox": sandbox and str(sandbox), "ahead": ENTRY in command}


def _environment(
    cloud: Cloud, name: str, spec: dict, replica: Replica, addresses: dict
) -> dict[str, str]:
    """What Vertex AI sets. Source: [D: training/code-requirements, distributed-training]"""
    _, project, _, location, _, number = name.split("/")
    env = {
        "CLOUD_ML_JOB_ID": number, "CLOUD_ML_PROJECT_ID": project_number(project),
        "CLOUD_ML_REGION": location,
        "LOCAL_CLOUD_PROJECT": project, "LOCAL_CLOUD_GRACE_S": str(grace_s()),
    }  # fmt: skip
    base = spec.get("baseOutputDirectory", {}).get("outputUriPrefix", "").rstrip("/")
    names = {"MODEL": "model", "CHECKPOINT": "checkpoints", "TENSORBOARD_LOG": "logs"}
    env |= {f"AIP_{name}_DIR": f"{base}/{folder}/" for name, folder in names.items() if base}
    about = {"environment": "cloud", "job": json.dumps(spec)}
    task = {"type": f"workerpool{replica.pool}", "index": replica.index}
    env["CLUSTER_SPEC"] = json.dumps({"cluster": addresses, "task": task} | about)
    if sum(map(len, addresses.values())) > 1:
        cluster = {POOLS[int(name[-1])]: hosts for name, hosts in addresses.items()}
        task = {"type": POOLS[replica.pool], "index": replica.index}
        env["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task} | about)
    return env


def _uri(pool: dict) -> str:
    task = pool.get("containerSpec") or pool["pythonPackageSpec"]
    return task.get("imageUri") or task["executorImageUri"]


def _image(cloud: Cloud, uri: str) -> builds.Image:
    """The image of that address, or a stand-in (`root` "") where this Python can do its work."""
    image = builds.image(cloud, uri)
    base = image.base if image else uri
    if PYTHON_IMAGE.fullmatch(base):
        return image or builds.Image("", "/", {}, [], [], uri)
    if image is None and builds.IMAGE.fullmatch(uri):
        raise ApiError(404, f"Image {uri} not found: nothing of that name was built and pushed.")
    raise ApiError(
        400, f"Without Docker, {base} can't be run here. Use an image based on python, "
        "tensorflow/tensorflow or Vertex AI's training images.",
    )  # fmt: skip


def _command(image: builds.Image, container: dict, own: str) -> list[str]:
    """`command` replaces the image's ENTRYPOINT and CMD, `args` its CMD."""
    command = container.get("command") or image.entrypoint
    rest = container.get("args") or ([] if container.get("command") else image.cmd)
    words = [image.inside(word) if image.root else word for word in [*command, *rest]]
    if not words:
        raise ApiError(400, f"No command specified, and {image.base} is not known to have one.")
    python = re.fullmatch(r"(/usr(/local)?/bin/)?python(3(\.\d+)?)?", words[0])
    return [own, *words[1:]] if python else words


def _own(
    cloud: Cloud, home: Path, image: builds.Image
) -> tuple[environments.Environment, builds.Image]:
    """The Python of a replica, and the image with a copy of its files that only it changes."""
    own = environments.make(cloud, home, _packages(image))
    if not image.root:
        return own, image
    root = home / "image"
    if not root.exists():
        shutil.copytree(image.root, root, symlinks=True)
    return own, replace(image, root=str(root))


def _packages(image: builds.Image) -> list[str]:
    return environments.base_requirements(image.base) + image.packages


def _as_client(cloud: Cloud, home: Path, who: callers.Caller) -> str:
    """The folder from which this project's package takes address and token: the job's own."""
    folder = home / "cloud"
    folder.mkdir(mode=0o700, exist_ok=True)
    known = {"url": cloud.url, "token": who.token, "pid": os.getpid()}
    (folder / "emulator.json").write_text(json.dumps(known))
    return str(folder)


def _package_commands(cloud: Cloud, package: dict, python: str) -> list[list[str]]:
    files = [str(buckets.path_of(cloud, uri)) for uri in package["packageUris"]]
    for uri, path in zip(package["packageUris"], files, strict=True):
        if not os.path.isfile(path):
            raise ApiError(404, f"The Python package {uri} does not exist.")
    module = [python, "-m", package["pythonModule"], *package.get("args", [])]
    return [[python, "-m", "pip", "install", *files], module]


def _gcs(cloud: Cloud, text: str) -> str:
    """`/gcs/BUCKET/…`, the mounted view of buckets, as the plain files it stands for."""
    return re.sub(r"(?<![\w./-])/gcs/(?=[a-z0-9])", f"{cloud.folder}/buckets/", text)
