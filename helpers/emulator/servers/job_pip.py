"""pip inside a job, there `pip` or `python -m pip`: `python -E -s job_pip.py PREFIX install …`

Nothing is downloaded, and nothing of this machine changed: a distribution that is installed here
counts as available and is shown to the job (packages.py); files, the job's own code, are installed
below PREFIX, from where the job imports. Anything else fails as pip says it.
"""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import packages
from packaging.requirements import InvalidRequirement, Requirement

PIP = [sys.executable, "-I", "-m", "pip", "--isolated", "--disable-pip-version-check"]
ARCHIVES = (".whl", ".tar.gz", ".zip")
HARMLESS = {"list", "show", "freeze", "check", "inspect", "--version", "-V", "help", "--help"}
INSTALL = [*PIP, "install", "--quiet", "--no-index", "--no-build-isolation"]


def main(prefix: Path, words: list[str]) -> int:
    if words and words[0] in HARMLESS:
        python = ["--python", str(prefix / "bin" / "python")]
        return subprocess.run([*PIP, *python, *words]).returncode
    if words[:1] != ["install"]:
        print(f"pip {' '.join(words[:1])} is not available inside a local job.", file=sys.stderr)
        return 1
    words = [word for word in words[1:] if word != "--user"]
    # --target forgets what is installed, so a dry run asks first whether that suffices.
    code = subprocess.run([*INSTALL, "--dry-run", *words]).returncode
    if code:
        return code
    files = [w for w in words if os.path.isdir(w) or (os.path.isfile(w) and w.endswith(ARCHIVES))]
    site = prefix / packages.SITE
    if files:
        into = ["--no-deps", "--upgrade", "--target", str(site), *files]
        code = subprocess.run([*INSTALL, *into]).returncode
    asked = _requirements(words)
    for own in metadata.distributions(path=[str(site)]):
        packages.add_commands(prefix / "bin", own)
        asked += [] if "--no-deps" in words else own.requires or []
    here = packages.installed()
    mark = "=" * ("--no-deps" in words)
    names = packages.closure([mark + line for line in asked if _applies(line)], here) - {"pip"}
    packages.show(prefix, {name: here[name] for name in names}, here, below=packages.SITE)
    return code


def _requirements(words: list[str]) -> list[str]:
    """Those among pip's arguments, and those of the files that it is to read."""
    lines = [word for word in words if not word.startswith("-")]
    for i, word in enumerate(words):
        name = word.partition("=")[2] if word.startswith("--requirement=") else word[2:]
        if word in ("-r", "--requirement"):
            name = words[i + 1]
        if word.startswith(("-r", "--requirement")):
            lines += [line.split(" --")[0].split(" #")[0].rstrip("\\ ") for line in
                      Path(name).read_text().splitlines()]  # fmt: skip
    return [line for line in map(str.strip, lines) if _is_requirement(line)]


def _is_requirement(line: str) -> bool:
    try:
        Requirement(line)
    except InvalidRequirement:
        return False
    return not os.path.exists(line)


def _applies(line: str) -> bool:
    marker = Requirement(line).marker
    return marker is None or marker.evaluate({"extra": ""})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
