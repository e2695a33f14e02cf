"""From a notebook's name to what a job needs: checked here, then put into the bucket.

Nothing is made or sent before all checks have passed.
"""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from helpers.cells import leaks, neighbours, places
from helpers.cells import parameters as cells
from helpers.cells.code import submits_itself
from helpers.cells.notebook_file import NotebookFile, find_notebook
from helpers.cloud import images, storage
from helpers.cloud.client import Session
from helpers.cloud.jobs import new_name
from helpers.errors import NotebookError, SettingError


@dataclass(frozen=True)
class Work:
    """What a job is to run, checked: nothing of it has left this machine."""

    file: NotebookFile
    parameters: dict
    places: dict[str, list[places.Place]]
    code: dict[str, bytes]
    requirements: bytes


@dataclass(frozen=True)
class Staged:
    """What the service is asked for: the job's name, its folder in the bucket, one worker pool."""

    display_name: str
    base_uri: str
    pool: dict


def check(
    session: Session,
    notebook: str,
    parameters: dict | None,
    *,
    files: list[str] | tuple[str, ...] = (),
    requirements: str | None = None,
    workers: int = 0,
) -> Work:
    """Find everything a job needs and refuse what could not work.

    Args:
        files: modules, packages and other files for the job's working directory.
        requirements: a file of what to install beside the versions installed here.
        workers: machines beside the chief.
    Raises:
        SettingError, NotFoundError, NotebookError: something does not fit; nothing was made.
    """
    file = find_notebook(notebook, session)
    book, declared = cells.read(file.path), cells.declared(file.path)
    given = cells.check_parameters(file.path, parameters or {})
    around = list(dict.fromkeys([Path.cwd(), file.path.parent]))
    code = neighbours.named(files, around)
    _check_book(file, book)
    if missing := neighbours.imported(book, code, around):
        raise SettingError(
            f"{file.path.name} imports {', '.join(missing)}, which would not be in the job: send "
            f"it along with files={missing + list(files)!r}."
        )
    if workers:
        _check_shared(file, book)
    for line in cells.stale(file.path, given):
        print(f"Note:     {line} is computed from the default; put that line into the next cell.")
    found = places.find(declared, given, file.path.parent)
    return Work(file, given, found, code, neighbours.requirements(requirements, around))


def stage(session: Session, work: Work, machine: dict, *more: str) -> Staged:
    """Put what a job needs into the bucket, and build its image if there is none yet.

    Args:
        more: arguments of the container beside the notebook and its parameters.
    """
    file = work.file
    print(f"Notebook: {file.path} ({file.origin}, sha256 {file.sha256})")
    for name, found in work.places.items():
        uploaded = {path for place in found for path in place.files.values()}
        size = tqdm.format_sizeof(sum(path.stat().st_size for path in uploaded), "B")
        count = f"{len(uploaded):,} files, " * (len(uploaded) > 1)
        where = f"bucket {session.bucket} in {session.location}"
        shown = ", ".join(place.value for place in found)
        print(f"Upload:   {name} = {shown} ({count}{size}) to {where}")
    image = images.environment_image(session, accelerator=machine.get("acceleratorType"))
    image = images.with_requirements(session, image, work.requirements)
    display_name, base_uri = new_name(session, file.name)
    data = f"{base_uri}/input"
    uploads = {
        n: path for found in work.places.values() for p in found for n, path in p.files.items()
    }
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: storage.upload_file(session, uploads[n], f"{data}/{n}"), uploads))
    defaults = cells.read_parameters(file.path)
    given = places.rewritten(work.parameters, defaults, work.places, data)
    notebook_uri = storage.upload_file(session, file.path, f"{data}/{file.name}.ipynb")
    parameters_uri = storage.write_bytes(
        session, json.dumps(given).encode(), f"{data}/parameters.json"
    )
    arguments = [f"--notebook={notebook_uri}", f"--parameters={parameters_uri}", *more]
    if work.code:
        print(f"Files:    {', '.join(sorted(work.code))}")
        packed = images.pack(work.code)
        arguments.append(f"--code={storage.write_bytes(session, packed, f'{data}/code.tgz')}")
    container = {"imageUri": image, "args": arguments}
    pool = {"machineSpec": machine, "replicaCount": "1", "containerSpec": container}
    return Staged(display_name, base_uri, pool)


def _check_book(file: NotebookFile, book) -> None:
    cell, verb = submits_itself(book, file.name)
    if cell:
        raise SettingError(
            f"{file.name}.ipynb submits itself: cell {cell} calls helpers.{verb}, and the job "
            "would call it again. Put that cell into a notebook of its own, or its lines under "
            '`if "CLOUD_ML_JOB_ID" not in os.environ:`.'
        )
    cell, path = places.fixed(book)
    if cell:
        raise SettingError(
            f"{file.name}.ipynb reads {path} in cell {cell}, which the machine of a job does not "
            f'have. Make it a parameter, DATA = "{path}", and read helpers.fetch(DATA).'
        )
    if said := leaks.take_out(book, file.path.name):
        raise NotebookError(f"{said} Remove it; nothing was submitted.")


def _check_shared(file: NotebookFile, book) -> None:
    """Refuse machines that would each train alone; only the chief's model would be kept."""
    code = "\n".join(cell.source for cell in book.cells if cell.cell_type == "code")
    if not re.search(r"[Ss]trategy\(|TF_CONFIG|CLUSTER_SPEC", code):
        raise SettingError(
            f"No cell of {file.path.name} asks how to share the work: each of the machines would "
            "train alone, and only the chief's model be kept. Build and compile the model under "
            "helpers.strategy().scope(), or use workers=0."
        )
