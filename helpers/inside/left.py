"""What a notebook or script leaves: everything is stored, and its model where a model belongs.

A job's folder in the bucket gets all files of OUTPUT_DIR and all new ones of the working directory,
under the names they have there. A SavedModel or `.keras` file, wherever it is, becomes `model/1/`.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from helpers.cells import leaks
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.errors import DataError
from helpers.inputs import signature

SAVED = "saved_model.pb"
PARTS = re.compile(
    r"(saved_model|fingerprint|keras_metadata)\.pb|(variables|assets|assets\.extra)/.*"
)
PASSED_OVER = {"__pycache__", ".ipynb_checkpoints"}
OWN = re.compile(r"(input|failed)/.*|report\.html|left\.txt")  # names that are the job's own
SCANNED_BYTES = 2**20
HOW = "helpers.export(model)"
RENAMED = "has no serving_default"


@dataclass(frozen=True)
class Left:
    """Files by the names they get in the job's folder, and what the job says of them."""

    files: dict[str, Path]
    said: str


def stamps(folder: Path) -> dict[str, tuple[int, int]]:
    """When each file below a folder was last written, and its size."""
    return {name: _stamp(path) for name, path in _files(folder).items()}


def collect(output: Path, work: Path, before: dict[str, tuple[int, int]]) -> dict[str, Path]:
    """Every file of OUTPUT_DIR, and those of the working directory that are new or changed."""
    new = {n: path for n, path in _files(work).items() if before.get(n) != _stamp(path)}
    found = new | _files(output)
    hidden = {name: kind for name, path in found.items() if (kind := _secret(path))}
    for name, kind in hidden.items():
        print(f"Kept out: {name} (it shows a secret, {kind})")
    return {name: path for name, path in found.items() if name not in hidden}


def with_model(files: dict[str, Path], scratch: Path, *, convert: bool) -> Left:
    """Put the model in its place, and say what was left.

    Args:
        scratch: an empty folder; holds what has to be converted.
        convert: write `.keras` files again in the form that TensorFlow Serving takes.
    """
    found = _candidates(files)
    if not found:
        return Left(files, f"Left no model: {HOW} writes one{_besides(files)}")
    if len(found) > 1:
        names = " and ".join(found) if len(found) < 4 else f"{', '.join(found[:3])}, …"
        said = (
            f"Left {len(found)} models, {names}, so none is the job's: end the notebook with {HOW}"
        )
        return Left(files, f"{said}, or register one by its address")
    (place,) = found
    mine = _parts(files, place)
    fault, archive = _fault(mine) if mine else "", place.endswith(".keras")
    if archive or fault == RENAMED:
        if not convert:
            return Left(files, f"Left: {_others(files)}")
        mine, fault = _converted(files[place] if archive else mine[SAVED].parent, scratch)
    if fault:
        said = f"Left no model to serve: {place or 'it'} {fault}"
        return Left(files, f"{said}{_besides(files, place)}")
    kept = files if archive else {n: p for n, p in files.items() if p not in set(mine.values())}
    kept = kept | {f"model/1/{name}": path for name, path in mine.items()}
    origin = "" if place in ("model", "model/1") else f"made from {place}: " if place else ""
    said = [f"model ({origin}{_signature(mine)})", _others(kept, "model")]
    return Left(kept, f"Left: {', '.join(filter(None, said))}")


def store(
    cloud: Session, base: str, files: dict[str, Path], pages: dict[str, Path], *, model: bool | None
) -> None:
    """Everything into the bucket: what can't be made again first, a model's main file last.

    Args:
        pages: what the job itself has made; another file of such a name goes below `output/`.
        model: whether `model/` is the job's model; False keeps it below `failed/`, None not at all.
    """
    uris = {f"{base}/{name}": path for name, path in pages.items()}
    for name, path in files.items():
        if name.startswith("model/") and not model:
            if model is False:
                uris[f"{base}/failed/{name}"] = path
        else:
            apart = "output/" if name in pages or OWN.fullmatch(name) else ""
            uris[f"{base}/{apart}{name}"] = path
    saved = [uri for uri in uris if uri.startswith(f"{base}/checkpoints/")]
    made = [f"{base}/{name}" for name in pages]
    last = [uri for uri in uris if uri.endswith(f"/{SAVED}")]
    rest = [uri for uri in uris if uri not in {*saved, *made, *last}]
    for part in (saved, made, rest, last):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda uri: storage.upload_file(cloud, uris[uri], uri), part))


def _files(folder: Path) -> dict[str, Path]:
    found = {}
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - PASSED_OVER)
        for path in (Path(place, name) for name in sorted(names)):
            if path.is_file():  # no sockets, no links into nothing
                found[path.relative_to(folder).as_posix()] = path
    return found


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def _secret(path: Path) -> str:
    return leaks.shown(path.read_bytes()) if path.stat().st_size <= SCANNED_BYTES else ""


def _candidates(files: dict[str, Path]) -> list[str]:
    """The folders of SavedModels and the `.keras` files that may be the model; "" is the top."""
    saved = [n.rpartition("/")[0] for n in files if n.rpartition("/")[2] == SAVED]
    chosen = [place for place in saved if re.fullmatch(r"model(/\d+)?", place)]
    if "model/1" in chosen and set(chosen) <= {"model", "model/1"}:
        return ["model/1"]
    if chosen:
        return chosen
    if "model.keras" in files:
        return ["model.keras"]
    archives = [n for n in files if n.endswith(".keras") and n.removesuffix(".keras") not in saved]
    found = [*saved, *archives]
    finished = [place for place in found if not place.startswith(("checkpoints/", "logs/"))]
    return finished or found


def _parts(files: dict[str, Path], place: str) -> dict[str, Path]:
    """The files of a SavedModel by their names in its folder."""
    if place.endswith(".keras"):
        return {}
    below = f"{place}/" if place else ""
    found = {n.removeprefix(below): path for n, path in files.items() if n.startswith(below)}
    return {name: path for name, path in found.items() if PARTS.fullmatch(name)}


def _fault(mine: dict[str, Path]) -> str:
    """Why nobody can call a SavedModel; RENAMED where its signature only has another name."""
    try:
        signatures = signature.read(mine[SAVED].read_bytes()).signatures
    except DataError:
        return "is not a SavedModel that can be read"
    if not signatures:
        return f"has no signatures, so nobody can call it; {HOW} writes one that can be"
    return "" if signature.DEFAULT in signatures else RENAMED


def _converted(source: Path, scratch: Path) -> tuple[dict[str, Path], str]:
    """A model as TensorFlow Serving takes it, or why it can't be had. TensorFlow stays outside."""
    command = [sys.executable, "-m", "helpers.learning.export", str(source), str(scratch)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        told = [line for line in done.stdout.splitlines() if line.startswith("Nobody chose")]
        print(*told, sep="\n", end="\n" * bool(told))
        return _files(scratch / "1"), ""
    said = (done.stderr.strip() or f"ended with {done.returncode}").splitlines()[-1]
    said = said.partition(": ")[2].replace(str(source), "it") or said
    return {}, f"can't be served ({said})"


def _signature(mine: dict[str, Path]) -> str:
    call = signature.read(mine[SAVED].read_bytes()).signatures[signature.DEFAULT]
    takes = [f"{name} {tensor.dtype}" for name, tensor in call.inputs.items()]
    shares = [name for name in call.outputs if name.startswith("probability_")]
    gives = [name for name in call.outputs if len(shares) < 2 or name not in shares]
    return f"{_few(takes)} → {_few(gives + [f'{len(shares)} probabilities'] * (len(shares) > 1))}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _others(files: Iterable[str], but: str = "") -> str:
    """What else lies at the top of the job's folder."""
    tops = {name.partition("/")[0] + "/" * ("/" in name) for name in files}
    rest = sorted(tops - {"model/", but, but.partition("/")[0] + "/"})
    return _few(rest)


def _besides(files: Iterable[str], but: str = "") -> str:
    """The same, as a sentence of its own where no model was left."""
    others = _others(files, but)
    return f". Left: {others}" if others else ""
