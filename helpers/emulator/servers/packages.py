"""Show a program some of the distributions that are installed here, and no others.

    python -E -s packages.py FOLDER REQUIREMENT …

makes FOLDER a prefix, lib/python3.X/site-packages and all, of links to the files of what the
requirements name, with their dependencies (`=NAME`: without); bin/ has their commands.
"""

import importlib.metadata
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

SITE = f"lib/python{sys.version_info[0]}.{sys.version_info[1]}/site-packages"
COMMAND = """#!/usr/bin/env python
import sys
from {module} import {first}
sys.exit({attribute}())
"""


def main(folder: Path, words: list[str]) -> None:
    here = installed()
    show(folder, {name: here[name] for name in closure(words, here)}, here)


def installed() -> dict[str, importlib.metadata.Distribution]:
    """By plain name; of several of one name the first on the path, as for an import."""
    here: dict[str, importlib.metadata.Distribution] = {}
    for distribution in importlib.metadata.distributions():
        here.setdefault(plain(distribution.name), distribution)
    return here


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(words: list[str], here: dict) -> set[str]:
    """Names of what requirements bring, as far as it is here."""
    from packaging.requirements import Requirement

    chosen: set[tuple[str, str]] = set()
    todo = [(Requirement(word.removeprefix("=")), word.startswith("=")) for word in words]
    while todo:
        requirement, alone = todo.pop()
        name = plain(requirement.name)
        for extra in {"", *requirement.extras}:
            if name not in here or (name, extra) in chosen:
                continue
            chosen.add((name, extra))
            for line in [] if alone else here[name].requires or []:
                more = Requirement(line)
                if more.marker is None or more.marker.evaluate({"extra": extra}):
                    todo.append((more, False))
    return {name for name, _ in chosen}


def show(folder: Path, wanted: dict, here: dict, *, below: str = "") -> None:
    """Link whole folders where nobody else has a file in them, else file by file.

    Args:
        wanted, here: distributions by name; all that are here say which folders are shared.
        below: only what belongs below this folder of the prefix.
    """
    owners: dict[str, set[str]] = {}  # folder → distributions
    files = {name: dict(_files(distribution)) for name, distribution in here.items()}
    for name, paths in files.items():
        for parent in {place.rpartition("/")[0] for place in paths}:
            while parent:
                owners.setdefault(parent, set()).add(name)
                parent = parent.rpartition("/")[0]
    linked: set[str] = set()
    fixed = {"lib", SITE.rpartition("/")[0], SITE, "share", "etc"}
    for name in sorted(wanted):
        for place, path in files[name].items():
            parts, top = place.split("/"), 1
            while top < len(parts):
                above = "/".join(parts[:top])
                if above not in fixed and owners[above] <= wanted.keys():
                    break
                top += 1
            chosen = "/".join(parts[:top])
            if chosen not in linked and place.startswith(below):
                linked.add(chosen)
                source = Path(path)
                for _ in parts[top:]:
                    source = source.parent
                if source.exists() and not os.path.lexists(folder / chosen):
                    (folder / chosen).parent.mkdir(parents=True, exist_ok=True)
                    (folder / chosen).symlink_to(source)
        add_commands(folder / "bin", wanted[name])
    (folder / SITE).mkdir(parents=True, exist_ok=True)


def _files(distribution: importlib.metadata.Distribution) -> Iterator[tuple[str, str]]:
    """(place below a prefix, path here) of the files of a distribution."""
    site = str(distribution.locate_file(""))
    record = distribution.read_text("RECORD")
    if record is None:  # a Debian package
        tops = (distribution.read_text("top_level.txt") or distribution.name).split()
        names = [n for top in tops for n in (top, f"{top}.py") if os.path.exists(f"{site}/{n}")]
    else:
        names = [line.rsplit(",", 2)[0].strip('"') for line in record.splitlines()]
    for name in names:
        path = os.path.normpath(f"{site}/{name}")
        if path.startswith(site):
            place = SITE + path[len(site) :]
        else:
            place = os.path.relpath(path, sys.prefix)
        if not place.startswith(("..", "/", "bin/")) and "__pycache__" not in place:
            yield place, path


def add_commands(folder: Path, distribution: importlib.metadata.Distribution) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for entry in distribution.entry_points:
        if entry.group == "console_scripts":
            first = entry.attr.partition(".")[0]
            text = COMMAND.format(module=entry.module, first=first, attribute=entry.attr)
            (folder / entry.name).write_text(text)
            (folder / entry.name).chmod(0o700)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
