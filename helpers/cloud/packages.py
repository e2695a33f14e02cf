"""The packages of a job's image: what its author runs, pinned, with hashes where they are known.

What can be known without asking an index: what is installed here, how it came here, and the hashes
of this project's lock file. That a wheel for Linux exists is certain where one is installed here
from an index; on another system it is taken to exist, and pip refuses at once where it does not.
"""

import json
import re
import sys
from importlib import metadata

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from helpers.cloud.folders import PACKAGE
from helpers.cloud.names import DISTRIBUTION
from helpers.errors import SettingError

PYTHONS = ((3, 11), (3, 13))  # the oldest and the newest that this package and TensorFlow share
JOB_MACHINE = {
    "sys_platform": "linux", "platform_system": "Linux", "os_name": "posix",
    "platform_machine": "x86_64",
}  # fmt: skip
TENSORFLOW = ("tensorflow", "tensorflow-cpu")
FOR_EXTRAS = re.compile(r";\s*extra\s*==\s*\S+\s*$")  # a requirement of nothing else


def python_version() -> str:
    """The author's Python, such as "3.11", which is the job's too.

    Raises:
        SettingError: TensorFlow has no wheels for it.
    """
    found = tuple(sys.version_info[:2])
    if not PYTHONS[0] <= found <= PYTHONS[1]:
        oldest, newest = (".".join(map(str, python)) for python in PYTHONS)
        raise SettingError(
            f"This is Python {'.'.join(map(str, found))}; jobs run the Python of their author, and "
            f"TensorFlow needs {oldest} to {newest}. Start again with one of these."
        )
    return ".".join(map(str, found))


def requirements(*, gpu: bool = False) -> str:
    """What the image installs without asking for more: the versions installed here.

    Args:
        gpu: TensorFlow's package with GPU support in place of the one without.
    Returns:
        Lines of a requirements file; each has its hashes when all of them are known.
    Raises:
        SettingError: a package came from this machine alone, or TensorFlow is not installed.
    """
    pinned = _pinned()
    name = next(name for name in TENSORFLOW if name in pinned)
    if gpu:
        pinned["tensorflow"] = pinned.pop(name)
    lock = hashes()
    lines = [f"{name}=={version}" for name, version in sorted(pinned.items())]
    if all(line in lock for line in lines):
        lines = [" ".join([line, *(f"--hash={digest}" for digest in lock[line])]) for line in lines]
    return "\n".join(lines) + "\n"


def tensorflow_version() -> str:
    """The version of TensorFlow that is installed here."""
    for name in TENSORFLOW:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise SettingError('TensorFlow is not installed. pip install "colab-to-cloud[tensorflow]"')


def hashes() -> dict[str, list[str]]:
    """`name==version` -> hashes, of this project's lock file."""
    places = (PACKAGE / "templates" / "requirements.lock", PACKAGE.parent / "requirements.lock")
    text = next((place.read_text() for place in places if place.is_file()), "")
    found = re.findall(r"(?m)^(\S+==[^\s;]+)[^\n]*\n((?:    --hash=\S+[ \\]*\n)+)", text + "\n")
    return {name: re.findall(r"--hash=(\S+)", block) for name, block in found}


def check_requirements(text: str, path: str) -> None:
    """Refuse lines of a requirements file that only its author's machine can install.

    Raises:
        SettingError: a line names a file, or no requirement.
    """
    for line in re.sub(r"\\\n", " ", text).splitlines():
        wanted = re.split(r"\s#|\s--", line.strip())[0].strip()
        if not wanted or wanted.startswith("#"):
            continue
        local = re.match(r"(-e|--editable|-f|--find-links)\b|\.{0,2}/|\w:\\|file:", wanted)
        if local or re.search(r"@\s*file:", wanted):
            raise SettingError(
                f'{path}: "{wanted}" is a file of this machine, which the image can\'t have. Name '
                "a release instead, such as numpydoc==1.8.0; after conda, `pip list "
                "--format=freeze` writes them."
            )
        try:
            wanted.startswith("-") or "://" in wanted or Requirement(wanted)
        except InvalidRequirement as error:
            raise SettingError(f'{path}: "{wanted}" is no requirement ({error}).') from error


def _pinned() -> dict[str, str]:
    """Name -> version of all that this package needs in a job, as it is installed here."""
    tensorflow_version()
    ours = metadata.requires(DISTRIBUTION) or []
    todo = [(line, {"tensorflow"}) for line in ours if _in_a_job(line)]
    todo += [(name, set()) for name in TENSORFLOW if _is_installed(name)][:1]
    pinned: dict[str, str] = {}
    known: dict[str, tuple[str, list[str]]] = {}
    seen: set[tuple[str, str]] = set()
    while todo:
        line, asked = todo.pop()
        if not asked - {""} and FOR_EXTRAS.search(line):
            continue
        requirement = Requirement(line)
        name = canonicalize_name(requirement.name)
        extras = [JOB_MACHINE | {"extra": extra} for extra in ("", *asked)]
        applies = requirement.marker is None or any(map(requirement.marker.evaluate, extras))
        if not applies or name == DISTRIBUTION or not (name in known or _is_installed(name)):
            continue
        if name not in known:
            found = metadata.distribution(name)
            _check_origin(found)
            known[name] = _about(found)
        pinned[name], needs = known[name]
        for extra in {"", *requirement.extras} - {e for n, e in seen if n == name}:
            seen.add((name, extra))  # bleach[css] needs more than bleach
            todo += [(more, {extra}) for more in needs]
    return pinned


def _about(found: metadata.Distribution) -> tuple[str, list[str]]:
    """Version and requirements, from the head of the file: its end is a long description."""
    head = (found.read_text("METADATA") or "").partition("\n\n")[0]
    version = re.search(r"(?m)^Version: *(.+)$", head)
    if version is None:  # an older form
        return found.version, found.requires or []
    return version[1].strip(), re.findall(r"(?m)^Requires-Dist: *(.+)$", head)


def _in_a_job(line: str) -> bool:
    """Whether one of this package's own requirements is needed there; TensorFlow comes by name."""
    return "extra ==" not in line or line.startswith(("keras", "setuptools", "tensorboard"))


def _is_installed(name: str) -> bool:
    try:
        metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return False
    return True


def _check_origin(found: metadata.Distribution) -> None:
    """Refuse a package that no index has as it is here."""
    url = json.loads(found.read_text("direct_url.json") or "{}").get("url", "")
    tags = re.findall(r"(?m)^Tag: \S+-(\S+)$", found.read_text("WHEEL") or "")
    installer = (found.read_text("INSTALLER") or "").strip()
    built = installer != "conda" and any(re.match(r"linux_", tag) for tag in tags)
    if url or built:
        how = f"was installed from {url}" if url else "was compiled on this machine, with no wheel"
        raise SettingError(
            f"{found.name} {found.version} {how}; the image of a job installs wheels from the "
            f"index. Install a release that has one: pip install --force-reinstall "
            f"--only-binary=:all: {found.name}"
        )
