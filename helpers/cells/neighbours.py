"""The files beside a notebook or script that its job needs: named, found by imports, or all of a
folder. Hidden files, environments, what an ignore file lists and credentials stay behind.
"""

import ast
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import nbformat

from helpers.cells import leaks
from helpers.cells.code import trees
from helpers.cloud.images import CREDENTIALS
from helpers.cloud.packages import check_requirements
from helpers.errors import NotFoundError, SettingError, near

LIMIT_BYTES = 100 * 2**20  # data belongs into the bucket
IGNORE_FILES = (".gcloudignore", ".dockerignore", ".gitignore")  # the first that is there
REPLACED = re.compile(
    r"\s*(tensorflow([-_](cloud|cpu|gpu))?|tf-nightly)\s*([\[<>=!~;#].*)?$", re.IGNORECASE
)


def of_folder(folder: Path) -> dict[str, bytes]:
    """The files of a script's folder, by their names in it."""
    rules = _ignore_rules(folder)
    files, kept_out, size_bytes = {}, [], 0
    for place, folders, names in os.walk(folder):
        inner = [name for name in folders if not (name.startswith(".") or name == "__pycache__")]
        inner = [name for name in inner if not Path(place, name, "pyvenv.cfg").exists()]
        relative = Path(place).relative_to(folder)
        folders[:] = [n for n in inner if not _ignored(rules, f"{(relative / n).as_posix()}/x")]
        for path in (Path(place, name) for name in names if not name.startswith(".")):
            name = path.relative_to(folder).as_posix()
            inside = path.is_file() and path.resolve().is_relative_to(folder)
            if not inside or _ignored(rules, name):
                continue
            size_bytes += path.stat().st_size
            if size_bytes > LIMIT_BYTES:
                raise SettingError(
                    f"{folder} holds more than {LIMIT_BYTES / 1e6:.0f} MB; name what the job does "
                    f"not need in {IGNORE_FILES[0]}, and keep data in the bucket."
                )
            content = path.read_bytes()
            if CREDENTIALS.search(name) or leaks.shown(content):
                kept_out.append(name)
            else:
                files[name] = content
    if kept_out:
        print(f"Kept out: {', '.join(kept_out)} (looks like a credential)")
    return files


def named(names: Iterable[str], around: list[Path]) -> dict[str, bytes]:
    """Files and folders by name or pattern, as they are to lie in the job's working directory.

    Args:
        around: where to look, one after the other.
    Raises:
        NotFoundError: no such file.  SettingError: it is a credential, or all is too large.
    """
    files: dict[str, bytes] = {}
    for name in [names] if isinstance(names, str | os.PathLike) else names:
        for path, place in _matches(str(name), around):
            if path.is_dir():
                files |= {f"{place}/{n}": content for n, content in of_folder(path).items()}
                continue
            content = path.read_bytes()
            if CREDENTIALS.search(place) or leaks.shown(content):
                raise SettingError(
                    f"{path} looks like a credential; a job needs none. Leave it out."
                )
            files[place] = content
    if sum(map(len, files.values())) > LIMIT_BYTES:
        raise SettingError(
            f"The files of the job are more than {LIMIT_BYTES / 1e6:.0f} MB. Pass data as a "
            "parameter: it is put into the bucket, and helpers.fetch gives its path."
        )
    return files


def imported(notebook: nbformat.NotebookNode, sent: Iterable[str], around: list[Path]) -> list[str]:
    """The modules and packages beside a notebook that it imports, or that those import.

    Args:
        sent: the files that the job gets; what they hold is not named.
    """
    there, missing, seen = set(sent), [], set()
    todo = [tree for _, tree in trees(notebook)]
    while todo:
        for name in _modules(todo.pop()) - seen - set(sys.stdlib_module_names) - {"helpers"}:
            seen.add(name)
            found = next((p for folder in around if (p := _module(folder, name))), None)
            if found is None:
                continue
            place = found.name + "/" * found.is_dir()
            if not any(file == place or file.startswith(place) for file in there):
                missing.append(place.rstrip("/"))
            for path in [found] if found.is_file() else found.rglob("*.py"):
                todo += _parsed(path)
    return sorted(missing)


def requirements(name: str | None, around: list[Path]) -> bytes:
    """A requirements file without TensorFlow's own packages: the image has them.

    Raises:
        NotFoundError: no such file.
        SettingError: a line names something that only this machine has.
    """
    if not name:
        return b""
    path = next((p for folder in around if (p := folder / name).is_file()), None)
    if path is None:
        beside = [file.name for folder in around for file in folder.glob("*.txt")]
        hint = near(str(name), beside)
        raise NotFoundError(f'No requirements file "{name}" in {Path.cwd()}.{hint}')
    kept, text = [], path.read_text(encoding="utf-8")
    check_requirements(text, path.name)
    for line in text.splitlines():
        if REPLACED.match(line):
            print(f"Kept out: {line.strip()} (the image has what replaces it)")
        else:
            kept.append(line)
    return "\n".join(kept).encode()


def _matches(name: str, around: list[Path]) -> list[tuple[Path, str]]:
    """The files or folders of a name or pattern, each with its name in the job."""
    wanted = Path(name).expanduser()
    for folder in around:
        absolute = wanted.is_absolute()
        start = Path(wanted.anchor) if absolute else folder
        pattern = str(wanted.relative_to(wanted.anchor)) if absolute else name
        if wanted == Path("."):
            return [(path, path.name) for path in sorted(folder.iterdir()) if path.name[0] != "."]
        found = sorted(start.glob(pattern)) if "*" in name else [start / pattern]
        inside = [path for path in found if path.exists()]
        if inside:
            outside = absolute or ".." in wanted.parts
            return [(p, p.name if outside else p.relative_to(folder).as_posix()) for p in inside]
    beside = [path.name for folder in around for path in folder.iterdir()]
    hint = near(name, beside)
    raise NotFoundError(f'files: no "{name}" in {" or ".join(map(str, around))}.{hint}')


def _modules(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.partition(".")[0])
    return names


def _module(folder: Path, name: str) -> Path | None:
    if (folder / f"{name}.py").is_file():
        return folder / f"{name}.py"
    package = folder / name
    return package if package.is_dir() and any(package.glob("*.py")) else None


def _parsed(path: Path) -> list[ast.Module]:
    try:
        return [ast.parse(path.read_bytes())]
    except (SyntaxError, ValueError):
        return []  # it will raise where it is imported


def _ignore_rules(folder: Path) -> list[tuple[bool, re.Pattern]]:
    """(ignore?, pattern) a line of the ignore file, in the form .gitignore has."""
    found = [folder / name for name in IGNORE_FILES if (folder / name).is_file()]
    lines = found[0].read_text().splitlines() if found else []
    rules = []
    for line in (line.strip() for line in lines if line.strip() and not line.startswith("#")):
        body = line.removeprefix("!").removeprefix("/")
        anywhere = "" if "/" in line.removeprefix("!").rstrip("/") else "(.*/)?"
        pattern = re.sub(
            r"\*\*/|\*\*|\*|\?|[^*?]+",
            lambda m: (
                {"**/": "(.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(m[0])
                or re.escape(m[0])
            ),
            body.rstrip("/"),
        )
        below = "/.*" if body.endswith("/") else "(/.*)?"
        rules.append((not line.startswith("!"), re.compile(anywhere + pattern + below)))
    return rules


def _ignored(rules: list[tuple[bool, re.Pattern]], name: str) -> bool:
    return next((ignore for ignore, rule in reversed(rules) if rule.fullmatch(name)), False)
