"""Files and folders of this machine that a notebook's parameters name: they go into the bucket.

A parameter is a place when its value names something that is here, whatever the parameter's name;
names of things the notebook writes (OUTPUT_DIR, LOG_FILE) and of things in the cloud are not looked
at. A value that looks like a place and is nowhere is refused before a machine starts.
"""

import ast
import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers.cells import leaks
from helpers.cells.code import trees
from helpers.cells.parameters import Parameter, parameters_cell
from helpers.cloud.folders import project_root
from helpers.cloud.images import CREDENTIALS
from helpers.errors import NotFoundError, SettingError, near
from helpers.inputs.files import BUILT_IN, find_files

KNOWN = {*BUILT_IN, "digits", "reviews", "weekly_sales"}  # the prototypes' own data
WRITTEN = re.compile(
    r"(^|_)(OUT|OUTPUTS?|SAVE|RESULTS?|LOGS?|CHECKPOINTS?|EXPORT|REPORT|PLOT|PREDICTIONS?|CACHE|"
    r"TMP|TEMP)($|_)"
)
NO_PLACE = re.compile(
    r"TARGET|TASK|CLOUD|PROJECT|LOCATION|BUCKET|NOTEBOOK|METRIC|GOAL|PHASE|OWNER|MODE|BACKBONE|"
    r"WEIGHTS|TEXT|TIME|.*_(NAME|TYPE|COLUMN|ID|FORMAT)"
)
READ = re.compile(
    r"(^|_)(DATA|DATASETS?|INPUTS?|SOURCES?|CSV|CORPUS|FOLDER|TABLE|IMAGES|PICTURES|PHOTOS|TEXTS|ROWS)"
    r"(_(DIR|PATH|FILE|FOLDER|URI|URL))?$"
)
DATA_FILE = re.compile(
    r".+\.(csv|tsv|txt|jsonl?|ndjson|parquet|feather|xlsx?|zip|t?gz|tar|npz|npy|h5|hdf5|keras|pkl|"
    r"jpe?g|png|gif|bmp|tfrecords?|ya?ml|xml|wav|mp3|mp4|db|sqlite)",
    re.IGNORECASE,
)
ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
ON_EVERY_MACHINE = re.compile(r"/(gcs|tmp|dev|proc)(/|$)")


@dataclass(frozen=True)
class Place:
    """What a value of a parameter names: its files by their names in the bucket.

    `stands_for` is what the value becomes, below the job's input folder.
    """

    value: str
    stands_for: str
    files: dict[str, Path]


def find(parameters: dict[str, Parameter], given: dict, beside: Path) -> dict[str, list[Place]]:
    """The places that parameters name, passed or default.

    Args:
        parameters: all that the notebook declares.
        given: the values passed, as `check_parameters` gives them.
        beside: the notebook's folder.
    Raises:
        NotFoundError: a value looks like a place and is none; the nearest name is given.
        SettingError: a folder without files, or a credential.
    """
    found, taken = {}, {}
    for name, parameter in parameters.items():
        value = given.get(name, parameter.default)
        offered = parameter.form.choices
        if parameter.computed or WRITTEN.search(name.upper()) or NO_PLACE.fullmatch(name.upper()):
            continue
        if offered is not None and value in offered:
            continue
        for text in value if isinstance(value, list) else [value]:
            if not isinstance(text, str) or not text or text in KNOWN or ADDRESS.match(text):
                continue
            place = _place(name, text, beside, taken)
            if place:
                found.setdefault(name, []).append(place)
            elif _looks_like_one(name, text, passed=name in given, default=parameter.default):
                around = {p.name for p in (*Path.cwd().iterdir(), *beside.iterdir())}
                hint = near(text, {n for n in {*around, *KNOWN} if n[0] != "."})
                raise NotFoundError(
                    f'{name}="{text}": no file or folder of that name in {Path.cwd()}.{hint} If it '
                    "is a name that the notebook knows, offer it as a choice: "
                    f'{name} = "{text}"  # @param ["{text}"].'
                )
    return found


def rewritten(given: dict, defaults: dict, found: dict[str, list[Place]], uri: str) -> dict:
    """Parameters with places as addresses below `uri`."""
    made = dict(given)
    for name, places in found.items():
        there = {place.value: f"{uri}/{place.stands_for}" for place in places}
        value = given.get(name, defaults.get(name))
        made[name] = [there.get(v, v) for v in value] if isinstance(value, list) else there[value]
    return made


def fixed(notebook: nbformat.NotebookNode) -> tuple[int, str]:
    """The first cell that names a file of this machine by its whole path, and the path."""
    form = parameters_cell(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for number, tree in trees(notebook):
        if code[number - 1] is form:
            continue
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            whole = isinstance(text, str) and text.startswith("/") and not text.startswith("/gcs/")
            if whole and DATA_FILE.fullmatch(text) and Path(text).is_file():
                return number, text
    return 0, ""


def _place(name: str, text: str, beside: Path, taken: dict[str, Path]) -> Place | None:
    folders, paths = [Path.cwd(), beside, project_root()], []
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # no name that a file can have
        paths = [p for folder in folders if (p := folder / Path(text).expanduser()).exists()]
    if paths and paths[0].is_dir():
        files = {p.relative_to(paths[0]).as_posix(): p for p in _below(paths[0])}
        if not files:
            raise SettingError(f'{name}="{text}": the folder {paths[0]} holds no files.')
        top = _free(paths[0].resolve().name or "data", name, paths[0], taken)
        return Place(text, top, {f"{top}/{below}": path for below, path in files.items()})
    many = "*" in text and bool(READ.search(name.upper()))
    if "\n" in text or "\0" in text or len(text) > 1000 or ("*" in text and not many):
        return None
    listed = paths[:1]
    if not paths:
        with contextlib.suppress(OSError, ValueError):
            listed = find_files(text)
    if many:
        files = {path.name: path for path in listed}
        if len(files) < len(listed):
            raise SettingError(
                f'{name}="{text}": files of the same name; put them into one folder.'
            )
        top, pattern = _free(name.lower(), name, Path(text), taken), Path(text).name
        return Place(text, f"{top}/{pattern}", {f"{top}/{n}": path for n, path in files.items()})
    if not listed:
        return None
    if CREDENTIALS.search(listed[0].name) or _shows_secret(listed[0]):
        raise SettingError(f'{name}="{text}" looks like a credential and stays out of the bucket.')
    stands_for = _free(listed[0].name, name, listed[0], taken)
    return Place(text, stands_for, {stands_for: listed[0]})


def _below(folder: Path) -> list[Path]:
    """The files of a folder of data; what is hidden or a credential stays here."""
    found, kept_out = [], []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or any(part.startswith((".", "__MACOSX")) for part in parts):
            continue
        secret = CREDENTIALS.search("/".join(parts)) or _shows_secret(path)
        (kept_out if secret else found).append(path)
    if kept_out:
        print(f"Kept out: {', '.join(map(str, kept_out))} (looks like a credential)")
    return found


def _shows_secret(path: Path) -> bool:
    return path.stat().st_size < 2**16 and bool(leaks.shown(path.read_bytes()))


def _free(wanted: str, name: str, path: Path, taken: dict[str, Path]) -> str:
    """A name below the input folder that no other place has."""
    for candidate in (wanted, f"{name.lower()}-{wanted}"):
        if taken.setdefault(candidate, path) == path:
            return candidate
    return f"{name.lower()}-{len(taken)}-{wanted}"


def _looks_like_one(name: str, text: str, *, passed: bool, default) -> bool:
    if ON_EVERY_MACHINE.match(text) or "\n" in text or len(text) > 1000:
        return False
    read = bool(READ.search(name.upper()))
    written_out = text.startswith(("/", "~", "./", "../", ".\\"))
    if written_out or DATA_FILE.fullmatch(text) or (read and re.search(r"[/\\]", text)):
        return passed or read
    return read and passed and text != default
