"""A new project from a person's data: the notebooks with their parameters set, and what runs them.

python -m helpers.new churn --data path.csv --target churned [--folder …]
python -m helpers.new pets --kind image --data pictures
"""

import json
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import nbformat

from helpers.cloud.folders import templates
from helpers.errors import NotFoundError, SettingError, near
from helpers.inputs import picture_folders, series, texts
from helpers.inputs import table as data

HERE = Path(__file__).parent
NAMES = ("01_prototype.ipynb", "02_train.ipynb", "03_deploy.ipynb", "04_predict.ipynb")
FILES = {name: name for name in ("Makefile", "README.md", "requirements.txt", "run.py")}
FILES |= {"notebooks.yml": ".github/workflows/notebooks.yml"}
FILES |= {"project.toml": "pyproject.toml", "gitignore": ".gitignore"}
SAMPLE_BYTES, COPIED_BYTES = 8_000_000, 50_000_000
SHOWN, MANY = 20, 500


def new(
    name: str, source: str, target: str = "", *, folder: str | Path = ".", kind: str = "table"
) -> Path:
    """Write the project `folder`/`name`.

    Args:
        name: folder, model and endpoint name: a letter, then letters, digits, "_" and "-".
        source: a file, or a folder or zip of pictures; what is over 50 MB is used where it is,
            anything smaller is copied.
        target: the column to predict, which a table needs; task and columns are read from the
            file's first 8 MB.
        kind: table, image, text or series: which prototype the project begins with.
    Raises:
        SettingError: the name or kind is not usable, or the folder exists.
        DataError: the data is not of this kind, or has no such column.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{1,62}", name):
        raise SettingError(f'NAME="{name}" is not usable; expected 2-63 of a-z 0-9 _ -.')
    if kind not in KINDS:
        raise SettingError(f'KIND="{kind}" is unknown.{near(kind, KINDS)}')
    made = Path(folder, name).resolve()
    if made.exists():
        raise SettingError(f"{made} exists, and nothing is overwritten. Choose another NAME.")
    path = Path(source).resolve()
    if not (path.is_file() or (kind == "image" and path.is_dir())):
        raise NotFoundError(f'DATA="{source}": no such file. Give the path of a CSV file.')
    values, task = KINDS[kind](path, target)
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=made.parent) as beside:
        part = Path(beside, name)
        values = {"DATA": _kept(path, part), "MODEL_NAME": name} | values
        _write(part, kind, values, values | {"TASK": task, "name": name})
        part.rename(made)
    print(f"Made {made}: change into it, then `make run`.")
    return made


def _table(path: Path, target: str) -> tuple[dict[str, str], str]:
    """What the notebooks of a table are told, and the task; it is described on the way."""
    if not target:
        raise SettingError('TARGET="" is no column; name the one to predict.')
    table = _look(path, target)
    shown, columns = data.describe(table), len(table.features)
    print(f"{table.target}: {table.task} from {columns:,} columns")
    print(shown if columns < SHOWN else f"{shown.head(SHOWN)}\n… {columns + 1 - SHOWN:,} more")
    if columns > MANY:
        print(f"{columns:,} columns train slowly: delete those that can't matter.")
    return {"TARGET": table.target, "TASK": table.task}, table.task


def _image(path: Path, target: str) -> tuple[dict[str, str], str]:
    found = picture_folders.load(str(path))
    print(picture_folders.describe(found))
    return {"TARGET": ""}, "a class of pictures"


def _text(path: Path, target: str) -> tuple[dict[str, str], str]:
    found = texts.load(str(path), target=target)
    print(texts.describe(found))
    return {"TARGET": found.target}, "a class of texts"


def _series(path: Path, target: str) -> tuple[dict[str, str], str]:
    found = series.load(str(path), target=target)
    print(series.describe(found))
    return {"TARGET": found.target}, "a forecast"


KINDS = {"table": _table, "image": _image, "text": _text, "series": _series}


def _kept(path: Path, part: Path) -> str:
    """Where the project finds its data: a copy of its own, or where it is if that is large."""
    files = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
    if sum(file.stat().st_size for file in files) > COPIED_BYTES:
        print(f"Not copied, because it is large: {path}")
        return str(path)
    (part / "data").mkdir(parents=True)
    copy = shutil.copytree if path.is_dir() else shutil.copyfile
    copy(path, part / "data" / path.name)
    return f"data/{path.name}"


def _write(part: Path, kind: str, values: dict[str, str], about: dict[str, str]) -> None:
    """The notebooks, the first of them of this kind, and the files around them."""
    (part / "notebooks").mkdir(parents=True)
    for notebook in NAMES:
        own = notebook == NAMES[0] and kind != "table"
        source = templates() / "more" / f"{kind}.ipynb" if own else templates() / notebook
        text = _set(nbformat.read(source, as_version=4), values)
        (part / "notebooks" / notebook).write_text(text, encoding="utf-8")
    ours = metadata.metadata("colab-to-cloud")
    about = about | {"distribution": ours["Name"], "version": ours["Version"]}
    about["repository"] = ours["Project-URL"].partition(", ")[2]
    about["TARGET"] = about["TARGET"] or "label"
    for file, place in FILES.items():
        text = (HERE / "files" / file).read_text(encoding="utf-8")
        for key, value in about.items():
            text = text.replace(f"<{key}>", value)
        (part / place).parent.mkdir(parents=True, exist_ok=True)
        (part / place).write_text(text, encoding="utf-8")


def _look(path: Path, target: str) -> data.Table:
    """The table, or what a part of a large file tells of it."""
    size_bytes = path.stat().st_size
    if size_bytes <= SAMPLE_BYTES or path.suffix not in (".csv", ".tsv", ".txt", ".jsonl"):
        return data.load(str(path), target=target)
    with path.open("rb") as file, tempfile.TemporaryDirectory() as folder:
        part = Path(folder, path.name)
        part.write_bytes(file.read(SAMPLE_BYTES).rpartition(b"\n")[0])
        print(f"Looked at the first {SAMPLE_BYTES / 1e6:.0f} MB of {size_bytes / 1e6:,.0f} MB.")
        return data.load(str(part), target=target)


def _set(notebook: nbformat.NotebookNode, values: dict[str, str]) -> str:
    """A notebook's JSON with these defaults in its form, without links to pages of other files."""
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            for key, value in values.items():
                line = rf"(?m)^{key} = .*?(?=  # )"
                cell.source = re.sub(
                    line,
                    lambda _, k=key, v=value: f"{k} = {json.dumps(v, ensure_ascii=False)}",
                    cell.source,
                )
        elif cell.cell_type == "markdown":
            cell.source = re.sub(r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*\)\n*", "", cell.source)
            cell.source = re.sub(r"\[(`\w+\.ipynb`)\]\([^)]*\)", r"\1", cell.source)
            cell.source = re.sub(r' with `NOTEBOOK = "more/\w+\.ipynb"`', "", cell.source)
    return nbformat.writes(notebook) + "\n"
