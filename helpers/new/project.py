"""A new project from a CSV file: the notebooks with their parameters set, and what runs them.

python -m helpers.new churn --data path.csv --target churned [--folder …]
"""

import json
import re
import shutil
import tempfile
from importlib import metadata
from pathlib import Path

import nbformat

from helpers.cloud.folders import templates
from helpers.errors import NotFoundError, SettingError
from helpers.inputs import table as data

HERE = Path(__file__).parent
NAMES = ("01_prototype.ipynb", "02_train.ipynb", "03_deploy.ipynb", "04_predict.ipynb")
FILES = {name: name for name in ("Makefile", "README.md", "requirements.txt", "run.py")}
FILES |= {"notebooks.yml": ".github/workflows/notebooks.yml"}
FILES |= {"project.toml": "pyproject.toml", "gitignore": ".gitignore"}
SAMPLE_BYTES, COPIED_BYTES = 8_000_000, 50_000_000
SHOWN, MANY = 20, 500


def new(name: str, source: str, target: str, *, folder: str | Path = ".") -> Path:
    """Write the project `folder`/`name`.

    Args:
        name: folder, model and endpoint name: a letter, then letters, digits, "_" and "-".
        source: a CSV file; one over 50 MB is used where it is, a smaller one is copied.
        target: the column to predict; task and columns are read from the file's first 8 MB.
    Raises:
        SettingError: the name is not usable, or the folder exists.
        DataError: the file is no table, or has no such column.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{1,62}", name):
        raise SettingError(f'NAME="{name}" is not usable; expected 2-63 of a-z 0-9 _ -.')
    made = Path(folder, name).resolve()
    if made.exists():
        raise SettingError(f"{made} exists, and nothing is overwritten. Choose another NAME.")
    path = Path(source).resolve()
    if not path.is_file():
        raise NotFoundError(f'DATA="{source}": no such file. Give the path of a CSV file.')
    if not target:
        raise SettingError('TARGET="" is no column; name the one to predict.')
    table = _look(path, target)
    shown, columns = data.describe(table), len(table.features)
    print(f"{table.target}: {table.task} from {columns:,} columns")
    print(shown if columns < SHOWN else f"{shown.head(SHOWN)}\n… {columns + 1 - SHOWN:,} more")
    if columns > MANY:
        print(f"{columns:,} columns train slowly: delete those that can't matter.")

    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".new-", dir=made.parent) as beside:
        part = Path(beside, name)
        (part / "notebooks").mkdir(parents=True)
        kept = str(path)
        if path.stat().st_size <= COPIED_BYTES:
            kept = f"data/{path.name}"
            (part / "data").mkdir()
            shutil.copyfile(path, part / kept)
        else:
            print(f"Not copied, because it is large: {path}")
        values = {"DATA": kept, "TARGET": table.target, "TASK": table.task, "MODEL_NAME": name}
        for notebook in NAMES:
            text = _set(nbformat.read(templates() / notebook, as_version=4), values)
            (part / "notebooks" / notebook).write_text(text, encoding="utf-8")
        ours = metadata.metadata("colab-to-cloud")
        about = values | {"name": name, "distribution": ours["Name"], "version": ours["Version"]}
        about["repository"] = ours["Project-URL"].partition(", ")[2]
        for file, place in FILES.items():
            text = (HERE / "files" / file).read_text(encoding="utf-8")
            for key, value in about.items():
                text = text.replace(f"<{key}>", value)
            (part / place).parent.mkdir(parents=True, exist_ok=True)
            (part / place).write_text(text, encoding="utf-8")
        part.rename(made)
    print(f"Made {made}: change into it, then `make run`.")
    return made


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
    return nbformat.writes(notebook) + "\n"
