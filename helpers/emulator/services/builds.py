"""Cloud Build and Artifact Registry without Docker: an image is a folder and a Dockerfile."""

import argparse
import json
import re
import shlex
import shutil
import sys
import tarfile
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import InvalidRequirement, Requirement

from helpers.emulator.front.calls import (
    ApiError,
    Call,
    Cloud,
    found,
    method,
    not_emulated,
    now,
    page,
    refused,
    resources,
)  # fmt: skip
from helpers.emulator.services import buckets, environments, logs, operations

DOCKER_BUILD = argparse.ArgumentParser(exit_on_error=False, add_help=False, allow_abbrev=False)
DOCKER_BUILD.add_argument("-t", "--tag", action="append", default=[])
DOCKER_BUILD.add_argument("-f", "--file", default="")
DOCKER_BUILD.add_argument("--build-arg", action="append", default=[])
DOCKER_BUILD.add_argument("context", nargs="?", default="")
for flag in ("--no-cache", "--pull"):
    DOCKER_BUILD.add_argument(flag, action="store_true")
DOCKER_BUILD.add_argument("--cache-from", action="append")
DOCKER = re.compile(r"(gcr\.io/cloud-builders/)?docker(:.+)?")
IMAGE = re.compile(r"([a-z0-9-]+)-docker\.pkg\.dev/([^/]+)/([^/]+)/([\w./-]+?)(?::([\w.-]+))?")


class BuildError(Exception):
    """A step of a build failed; the message is the log's last line."""


@dataclass(frozen=True)
class Image:
    """What a container starts from; `root` is a folder on this machine."""

    root: str
    workdir: str
    env: dict[str, str]
    entrypoint: list[str]
    cmd: list[str]
    base: str
    packages: list[str] = field(default_factory=list)  # requirements; `=NAME`: without those of it

    def inside(self, text: str) -> str:
        """`text` with an absolute path of the image (alone or as --name=/path) mapped to ours."""
        head, sign, path = text.rpartition("=") if text.startswith("-") else ("", "", text)
        mapped = Path(self.root) / path.lstrip("/")
        return f"{head}{sign}{mapped}" if path.startswith("/") and mapped.exists() else text


def image(cloud: Cloud, uri: str) -> Image | None:
    """The image of that address, if it was built here."""
    kept = cloud.state.get(f"image/{uri}")
    return Image(**kept) if kept else None


# --- Cloud Build


def _parent(call: Call) -> str:
    named = call.path.get("parent") or call.query.get("parent")
    return named or f"projects/{call.path['projectId']}/locations/global"


@method("cloudbuild.projects.locations.builds.create", "cloudbuild.projects.builds.create")
def create_build(call: Call) -> dict:
    parent = _parent(call)
    source = call.body.get("source", {}).get("storageSource", {})
    if not source.get("bucket") or not source.get("object"):
        raise not_emulated("a build of anything but a storageSource {bucket, object}")
    if not call.body.get("steps"):
        raise ApiError(400, "Invalid build: no build steps specified.")
    build_id = f"{int(call.state.next_id()):08x}-0000-4000-8000-000000000000"
    name = f"{parent}/builds/{build_id}"
    link, (_, project, _, location) = f"{call.cloud.url}/v1/{name}", parent.split("/")
    values = {"PROJECT_ID": project, "BUILD_ID": build_id, "LOCATION": location}
    build = _substituted(call.body, values | call.body.get("substitutions", {})) | {
        "id": build_id, "name": name, "projectId": project, "status": "QUEUED",
        "createTime": now(), "logUrl": link,
    }  # fmt: skip
    _docker(build)  # would it be run?
    call.state.put("build", name, build, parent=parent)
    return operations.start(
        call, parent, run_build, {"name": name}, metadata="BuildOperationMetadata",
        response="Build", build=build,
    )  # fmt: skip


@method("cloudbuild.projects.locations.builds.get", "cloudbuild.projects.builds.get")
def get_build(call: Call) -> dict:
    name = call.path.get("name") or call.query.get("name")
    return found(call, name or f"{_parent(call)}/builds/{call.path['id']}")


@method("cloudbuild.projects.locations.builds.list", "cloudbuild.projects.builds.list")
def list_builds(call: Call) -> dict:
    return page(call, call.state.list("build", _parent(call))[::-1], "builds")


def _substituted(build: dict, values: dict[str, str]) -> dict:
    """[D: build-config-file-schema, substitute-variable-values] `$NAME`, `${NAME}`."""
    steps = [step | {"args": [_expand(arg, values) for arg in step.get("args", [])]}
             for step in build["steps"]]  # fmt: skip
    images = [_expand(uri, values) for uri in build.get("images", [])]
    return build | {"steps": steps} | ({"images": images} if images else {})


def _docker(build: dict) -> tuple[argparse.Namespace, list[str]]:
    """What the build's `docker build` is asked for, and the images that are pushed.

    Raises:
        ApiError: 501, a step does something else.
    """
    asked, pushed = None, [*build.get("images", [])]
    for step in build["steps"]:
        verb, *rest = step.get("args") or [""]
        if DOCKER.fullmatch(step.get("name", "")) and verb == "push":
            pushed += [uri for uri in rest if uri not in pushed]
            continue
        try:
            options, odd = DOCKER_BUILD.parse_known_args(rest)
        except argparse.ArgumentError as error:
            raise ApiError(400, f"docker {verb} {' '.join(rest)}: {error}") from error
        if not DOCKER.fullmatch(step.get("name", "")) or verb != "build" or odd or asked:
            said = " ".join([step.get("name", ""), verb, *rest])
            raise not_emulated(f"the build step {said!r} (one `docker build` and pushes are)")
        asked = options
    if not asked or not asked.context:
        raise not_emulated("a build without `docker build`")
    return asked, pushed


@operations.work
def run_build(cloud: Cloud, name: str) -> dict:
    build = cloud.state.update(name, lambda b: b | {"status": "WORKING", "startTime": now()})
    lines: list[str] = []
    folder = cloud.folder / "images" / build["id"]
    try:
        _unpack(cloud, build["source"]["storageSource"], folder / "source")
        asked, pushed = _docker(build)
        made = _dockerfile(cloud, folder, asked, lines)
        environments.view(cloud, environments.base_requirements(made.base) + made.packages)
        for uri in pushed:
            _push(cloud, build, uri, made)
            lines.append(f"Pushed {uri}")
        results = {"images": [{"name": uri} for uri in build.get("images", [])]}
        end = {"status": "SUCCESS", "results": results}
    except (BuildError, ApiError) as error:
        lines.append(f"ERROR: {error}")
        end = {"status": "FAILURE", "statusDetail": str(error)}
    shutil.rmtree(folder / "source", ignore_errors=True)
    logs.write(cloud, "build", name, lines, task="build")
    build = cloud.state.update(name, lambda b: b | end | {"finishTime": now()})
    if build["status"] != "SUCCESS":
        raise refused(f"Build failed: {build['statusDetail']}")
    return build


def _unpack(cloud: Cloud, source: dict, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    path = buckets.path_of(cloud, f"gs://{source['bucket']}/{source['object']}")
    try:
        with tarfile.open(path) as tar:
            tar.extractall(folder, filter="data")
    except FileNotFoundError as error:
        raise BuildError(f"Source gs://{source['bucket']}/{source['object']} not found.") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        raise BuildError(f"The source can't be unpacked: {error}") from error


def _dockerfile(
    cloud: Cloud, folder: Path, asked: argparse.Namespace, lines: list[str]
) -> Image:  # fmt: skip
    """Read the Dockerfile and do what can be done without Docker; the log says the rest."""
    top, root = folder / "source", folder / "root"
    source, given = _below(top, asked.context), dict(v.partition("=")[::2] for v in asked.build_arg)
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    try:
        text = (_below(top, asked.file) if asked.file else source / "Dockerfile").read_text()
    except OSError as error:
        raise BuildError(f"unable to read {asked.file or 'Dockerfile'} in the source") from error
    text = re.sub(r"\\\s*\n", " ", re.sub(r"(?m)^\s*#.*\n?", "", text))
    base, workdir, env, entrypoint, cmd, packages = "", "/", {}, [], [], []
    values: dict[str, str] = {}
    steps = [step.strip() for step in text.splitlines() if step.strip()]
    for number, step in enumerate(steps, 1):
        word, _, rest = step.partition(" ")
        rest = _expand(rest.strip(), values | env)
        lines.append(f"Step {number}/{len(steps)} : {word.upper()} {rest}")
        if word.upper() == "FROM":
            if base:
                raise BuildError("Builds of several stages are not emulated.")
            base = rest.split()[0]
            below = image(cloud, base)
            if below:
                shutil.copytree(below.root, root, dirs_exist_ok=True)
                base, workdir, env = below.base, below.workdir, dict(below.env)
                entrypoint, cmd, packages = below.entrypoint, below.cmd, [*below.packages]
        elif not base and word.upper() != "ARG":
            raise BuildError(f"The Dockerfile must start with FROM; found {word}.")
        elif word.upper() == "WORKDIR":
            workdir = str(PurePosixPath(workdir) / rest)
            _below(root, workdir).mkdir(parents=True, exist_ok=True)
        elif word.upper() in ("COPY", "ADD"):
            _copy(source, root, workdir, rest)
        elif word.upper() == "ENV":
            pairs = shlex.split(rest) if "=" in rest.split()[0] else ["=".join(rest.split(None, 1))]
            env |= dict(pair.split("=", 1) for pair in pairs)
        elif word.upper() == "ENTRYPOINT":
            entrypoint, cmd = _words(rest), []
        elif word.upper() == "CMD":
            cmd = _words(rest)
        elif word.upper() == "RUN":
            packages += _run(root, workdir, rest, lines)
        elif word.upper() == "ARG":
            name, _, value = rest.partition("=")
            values[name] = given.get(name, value.strip("\"'"))
        else:
            lines.append(f" ---> {word.upper()} has no effect here")
    if not base:
        raise BuildError("The Dockerfile is empty.")
    return Image(str(root), workdir, env, entrypoint, cmd, base, packages)


def _expand(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{?(\w+)\}?", lambda m: values.get(m[1], m[0]), text)


def _copy(source: Path, root: Path, workdir: str, rest: str) -> None:
    *froms, to = [word for word in shlex.split(rest) if not word.startswith("--")]
    target = _below(root, str(PurePosixPath(workdir) / to))
    for word in froms:
        matches = sorted(source.glob(word.strip("/"))) if word.strip("./") else [source]
        if not matches:
            raise BuildError(f"COPY failed: {word} is not in the source.")
        for match in matches:
            if match.is_dir():
                shutil.copytree(match, target, dirs_exist_ok=True)
            else:
                into = target / match.name if to.endswith(("/", ".")) or len(froms) > 1 else target
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(match, into)


def _run(root: Path, workdir: str, command: str, lines: list[str]) -> list[str]:
    """What a command installs: pip's requirements, which this Python must satisfy; anything else
    has no effect here."""
    if not re.search(r"\bpip3?\s+install\b", command):
        lines.append(" ---> has no effect here: the local cloud runs no commands in builds")
        return []
    wanted: list[str] = []
    for name in re.findall(r"(?:-r|--requirement)[ =](\S+)", command):
        path = _below(root, str(PurePosixPath(workdir) / name))
        wanted += path.read_text().splitlines() if path.is_file() else []
    words = shlex.split(re.split(r"\bpip3?\s+install\b", command)[1].split("&&")[0].split(";")[0])
    skip = {i + 1 for i, word in enumerate(words) if word in ("-r", "--requirement", "-c")}
    wanted += [w for i, w in enumerate(words) if not w.startswith("-") and i not in skip]
    wrong = [problem for line in wanted for problem in _unsatisfied(line)]
    mark = "=" * ("--no-deps" in words)
    if wrong:
        python = ".".join(map(str, sys.version_info[:3]))
        raise BuildError(
            f"This machine's Python {python} stands in for the image and does not satisfy: "
            + "; ".join(wrong)
        )
    lines.append(f" ---> {len(wanted)} requirements are satisfied by this machine's Python")
    return [mark + _stand_in(text) for text in map(_requirement, wanted) if text]


def _stand_in(text: str) -> str:
    """TensorFlow by the name of the package that is here: with GPU support or without, it is one
    library."""
    names = ("tensorflow", "tensorflow-cpu")
    here = [n for n in names if _version(n)]
    if not here or not re.match(r"tensorflow(-cpu)?(\[|[=<>!~; ]|$)", text):
        return text
    return re.sub(r"^tensorflow(-cpu)?(\[[\w, -]*\])?", here[0], text)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _requirement(line: str) -> str:
    """Of a line of a requirements file; "" where there is none for this Python."""
    text = re.split(r"\s--|\s#|\\$", line.strip())[0].strip()
    return "" if text.startswith(("#", "-")) else text


def _unsatisfied(line: str) -> list[str]:
    text = _requirement(line)
    if not text:
        return []
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return [f"{text!r} (not a requirement)"]
    if requirement.marker and not requirement.marker.evaluate():
        return []
    same = ("tensorflow", "tensorflow-cpu")  # one library, with and without GPU support
    names = same if requirement.name in same else (requirement.name,)
    version = next(filter(None, map(_version, names)), "")
    if not version:
        return [f"{text} (not installed)"]
    fits = requirement.specifier.contains(version, prereleases=True)
    return [] if fits else [f"{text} (installed: {version})"]


def _words(rest: str) -> list[str]:
    if rest.startswith("["):
        try:
            return [str(word) for word in json.loads(rest)]
        except ValueError as error:
            raise BuildError(f"not a JSON list: {rest}") from error
    return ["/bin/sh", "-c", rest]


def _below(root: Path, path: str) -> Path:
    made = (root / path.lstrip("/")).resolve()
    if not made.is_relative_to(root.resolve()):
        raise BuildError(f"{path} leaves the image.")
    return made


# --- Artifact Registry


def _push(cloud: Cloud, build: dict, uri: str, made: Image) -> None:
    match = IMAGE.fullmatch(uri)
    if not match:
        raise BuildError(f"{uri} is not LOCATION-docker.pkg.dev/PROJECT/REPOSITORY/NAME:TAG.")
    location, project, repository, name, tag = match.groups(default="latest")
    parent = f"projects/{project}/locations/{location}/repositories/{repository}"
    if cloud.state.get(parent) is None:
        raise BuildError(f'name unknown: Repository "{repository}" not found in {location}.')
    package = f"{parent}/packages/{name.replace('/', '%2F')}"
    version = f"{package}/versions/sha256:{build['id'].replace('-', '')}"
    moment = {"createTime": now(), "updateTime": now()}
    cloud.state.put("package", package, {"name": package} | moment, parent=parent)
    cloud.state.put("image", f"image/{uri}", asdict(made), parent=parent)
    tag_name = f"{package}/tags/{tag}"
    fixed = cloud.state.get(parent).get("dockerConfig", {}).get("immutableTags")
    if fixed and cloud.state.get(tag_name):
        raise BuildError(f"{uri}: the tag is taken, and the repository's tags are immutable.")
    cloud.state.put("tag", tag_name, {"name": tag_name, "version": version}, parent=package)


@method("artifactregistry.projects.locations.repositories.create")
def create_repository(call: Call) -> dict:
    parent, chosen = call.path["parent"], call.query.get("repositoryId", "")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?", chosen):
        raise ApiError(400, f"repositoryId {chosen!r}; expected up to 63 of [a-z0-9-].")
    if call.body.get("format") != "DOCKER":
        raise not_emulated(f"a repository of format {call.body.get('format')!r}")
    if call.body.get("mode", "STANDARD_REPOSITORY") != "STANDARD_REPOSITORY":
        raise not_emulated(f"a repository of mode {call.body['mode']}")
    name = f"{parent}/repositories/{chosen}"
    moment = {"createTime": now(), "updateTime": now()}
    repository = {"name": name, "mode": "STANDARD_REPOSITORY"} | call.body | moment
    try:
        call.state.create("repository", name, repository, parent=parent)
    except KeyError as error:
        raise ApiError(409, "the repository already exists") from error
    return operations.finished(
        call, parent, repository, metadata="OperationMetadata", kind="Repository"
    )


@method("artifactregistry.projects.locations.repositories.get")
def get_repository(call: Call) -> dict:
    repository, size_bytes = found(call, call.path["name"]), 0
    for uri in call.state.names("image", f"image/{_address(repository['name'])}/"):
        files = Path(call.state.get(uri)["root"]).parent.rglob("*")
        size_bytes += sum(file.stat().st_size for file in files if file.is_file())
    return repository | {"sizeBytes": str(size_bytes)}


@method("artifactregistry.projects.locations.repositories.list")
def list_repositories(call: Call) -> dict:
    return page(call, call.state.list("repository", call.path["parent"]), "repositories")


@method("artifactregistry.projects.locations.repositories.delete")
def delete_repository(call: Call) -> dict:
    name = call.path["name"]
    found(call, name)
    for package in call.state.list("package", name):
        for tag in call.state.list("tag", package["name"]):
            call.state.delete(tag["name"])
        call.state.delete(package["name"])
    for uri in call.state.names("image", f"image/{_address(name)}/"):
        shutil.rmtree(Path(call.state.get(uri)["root"]).parent, ignore_errors=True)
        call.state.delete(uri)
    call.state.delete(name)
    return operations.deleted(call, name.rpartition("/repositories/")[0], "OperationMetadata")


resources("artifactregistry.projects.locations.repositories.packages", "package")
resources("artifactregistry.projects.locations.repositories.packages.tags", "tag")


def _address(repository: str) -> str:
    _, project, _, location, _, name = repository.split("/")
    return f"{location}-docker.pkg.dev/{project}/{name}"
