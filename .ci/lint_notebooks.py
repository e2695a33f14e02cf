"""Hold the notebooks and the package to the rules that a formatter can't see.

    python .ci/lint_notebooks.py [notebook …]

Prints `file: rule: what to do`, one line a breach; exit 1 when there is one.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import forms
import links

LINES, WIDTH, CELLS, GENERATED_CELLS, FIELDS = 12, 88, 15, 20, 8
MORE = "# @markdown **More**"  # the fields end there; what follows is folded with the code
SNIPPETS = "snippets.ipynb"
GENERATED = {"quickstart.ipynb", SNIPPETS}
# What is true of one cloud and false of the other, above all of a local one inside Colab.
CLOUDY = re.compile(r"close this tab|tomorrow|over HTTPS?\b|leaves nothing running", re.IGNORECASE)
CLOUD = {"CLOUD", "PROJECT", "LOCATION", "BUCKET"}
NAMES = {  # what outside callers rely on; a notebook may have more
    "00_setup.ipynb": CLOUD,
    "01_prototype.ipynb": {"DATA", "TARGET", "EPOCHS", "BATCH_SIZE", "SEED", "OUTPUT_DIR"},
    "image.ipynb": {"DATA", "EPOCHS", "BATCH_SIZE", "SEED", "BACKBONE", "WEIGHTS", "OUTPUT_DIR"},
    "text.ipynb": {"DATA", "TEXT", "TARGET", "EPOCHS", "BATCH_SIZE", "SEED", "OUTPUT_DIR"},
    "series.ipynb": {"DATA", "TARGET", "HORIZON", "WINDOW", "EPOCHS", "SEED", "OUTPUT_DIR"},
    "any_model.ipynb": {"EPOCHS", "OUTPUT_DIR"},
    "02_train.ipynb": CLOUD | {"NOTEBOOK", "DATA", "TARGET", "EPOCHS", "MODEL_NAME"},
    "03_deploy.ipynb": CLOUD | {"MODEL_NAME", "ENDPOINT_NAME"},
    "04_predict.ipynb": CLOUD | {"MODEL_NAME", "ENDPOINT_NAME", "CLEAN_UP"},
    "tune.ipynb": CLOUD | {"NOTEBOOK", "DATA", "TARGET", "TRIALS", "PARALLEL", "EPOCHS"},
    "migrate_tensorflow_cloud.ipynb": CLOUD | {"MODEL_NAME", "EPOCHS", "CLEAN_UP"},
}
METADATA = {"colab", "kernelspec", "language_info"}
CELL_METADATA = {"tags", "cellView"}
PROTOTYPES = {"01_prototype.ipynb", "image.ipynb", "text.ipynb", "series.ipynb", "any_model.ipynb"}
WITH_TENSORFLOW = GENERATED | PROTOTYPES | {"migrate_tensorflow_cloud.ipynb"}


def check_notebook(path: Path, root: Path = links.ROOT) -> Iterator[str]:
    """Every breach of the cell rules in one notebook, as `rule: what to do`."""
    notebook = json.loads(path.read_text(encoding="utf-8"))
    cells = [(cell, "".join(cell["source"])) for cell in notebook["cells"]]
    code = [(cell, text) for cell, text in cells if cell["cell_type"] == "code"]
    prose = "\n\n".join(text for cell, text in cells if cell["cell_type"] == "markdown")

    if notebook["metadata"].get("kernelspec", {}).get("name") != "python3":
        yield "kernelspec: must be python3, which every machine has"
    for key in sorted(set(notebook["metadata"]) - METADATA):
        yield f"metadata: remove {key!r} of the notebook"
    if notebook["metadata"].get("colab") != links.colab_metadata(links.project(root)):
        yield "metadata: `colab` asks for the tested runtime and no more; run `make links`"
    limit = GENERATED_CELLS if path.name in GENERATED else CELLS
    if len(code) > limit and path.name != SNIPPETS:
        yield f"length: {len(code)} code cells; at most {limit}"
    titles = len(re.findall(r"^# ", prose, re.MULTILINE))
    if path.name == SNIPPETS:  # Colab finds a snippet by its title, which only an H1 is
        for text in (text for cell, text in cells if cell["cell_type"] == "markdown"):
            if len(re.findall(r"^# ", text, re.MULTILINE)) != 1 or not text.startswith("# "):
                yield f"heading: `{text[:40]}`; each snippet begins with `# ` and its title"
    elif titles != 1:
        yield f"heading: {titles} lines start with `# `; exactly one title"
    if said := CLOUDY.search(prose):
        yield f"prose: `{said[0]}` holds on one cloud only; let the run print it"
    yield from _check_badge(path, prose, root)
    if path.name != SNIPPETS:  # a snippet carries its own
        yield from _check_parameters(path.name, code)
    bootstraps = [text for cell, text in code if "bootstrap" in _tags(cell)]
    if bootstraps != [links.bootstrap(links.project(root))]:
        yield "bootstrap: exactly one cell, as pyproject.toml says; run `make links`"
    for number, (cell, text) in enumerate(code, 1):
        for breach in _check_code(cell, text, path.name):
            yield f"cell {number}: {breach}"
    yield from _check_headings(cells)
    yield from _check_links(path, prose, root)


def _check_badge(path: Path, prose: str, root: Path) -> Iterator[str]:
    place = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    wanted = f"[![Open In Colab]({links.BADGE})]({links.colab(links.project(root), place)})"
    if prose.count("Open In Colab") != 1 or wanted not in prose:
        yield "badge: exactly one, to this file at this tag; run `make links`"


def _check_parameters(name: str, code: list) -> Iterator[str]:
    cells = [(cell, text) for cell, text in code if "parameters" in _tags(cell)]
    if len(cells) != 1:
        yield f"parameters: {len(cells)} cells are tagged so; exactly one"
        return
    cell, text = cells[0]
    if cell["metadata"].get("cellView") != "form":
        yield 'parameters: set "cellView": "form" in the cell\'s metadata'
    first, *lines = text.splitlines()
    if not first.startswith("# @title "):
        yield "parameters: the first line must be `# @title Parameters`"
    more = next((n for n, line in enumerate(lines) if line.startswith(MORE)), len(lines))
    found, said = set(), ""
    for line in lines[:more]:
        if not line.startswith("# @markdown "):
            found.add(line.split(" = ")[0])
            if breach := forms.breach(line):
                yield f"parameters: `{line}`; {breach}"
            if not said:
                yield f"parameters: `{line}`; say above it what it is, after `# @markdown `"
        said = line if line.startswith("# @markdown ") else ""
    if len(found) > FIELDS:
        yield f"parameters: {len(found)} fields; at most {FIELDS}, the rest below `{MORE}`"
    for line in lines[more + 1 :]:
        found.add(line.split(" = ")[0])
        if breach := forms.breach_below(line):
            yield f"parameters: `{line}`; {breach}"
    for missing in sorted(NAMES.get(name, set()) - found):
        yield f"parameters: {missing} is missing"


def _check_code(cell: dict, text: str, name: str) -> Iterator[str]:
    if cell.get("outputs") or cell.get("execution_count") is not None:
        yield "outputs: strip them (nbstripout)"
    for key in sorted(set(cell["metadata"]) - CELL_METADATA):
        yield f"metadata: remove {key!r}"
    lines = text.splitlines()
    if len(lines) > LINES and name != SNIPPETS and "parameters" not in _tags(cell):
        yield f"length: {len(lines)} lines; at most {LINES}"
    if "# @param" in text and "parameters" not in _tags(cell):
        yield "form: only the parameters cell has one"
    if "bootstrap" not in _tags(cell):  # written by links.py, folded
        yield from (f"width: `{line[:40]}…` is over {WIDTH}" for line in lines if len(line) > WIDTH)
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        yield f"syntax: {error.msg} (shell `!` and magic `%` pass silently when they fail)"
        return
    if not text.strip():
        yield "empty: remove it"
    if any(isinstance(node, ast.Try) for node in ast.walk(tree)):
        yield "try: a notebook fails where it fails; check before, or raise"
    if name not in WITH_TENSORFLOW and _imports(text) & {"tensorflow", "keras"}:
        yield "tensorflow: only prototypes import it"


def _check_headings(cells: list) -> Iterator[str]:
    """Every code cell stands below a heading that has a sentence, or below such a cell."""
    number, under = 0, False
    level = 0
    for cell, text in cells:
        if cell["cell_type"] == "markdown":
            for marks, title in re.findall(r"^(#+) (.*)", text, re.MULTILINE):
                if len(marks) > level + 1:
                    yield f"heading: `{title}` skips a level; use {'#' * (level + 1)}"
                level = len(marks)
            said = re.sub(r"^#.*$", "", text, flags=re.MULTILINE).strip()
            under = bool(said) and (under or bool(re.search(r"^#+ ", text, re.MULTILINE)))
        else:
            number += 1
            if not under:
                yield f"cell {number}: heading: put a heading and a sentence above it"


def _check_links(path: Path, prose: str, root: Path) -> Iterator[str]:
    """A relative link opens nowhere in Colab; a link into this repository must meet a file."""
    about = links.project(root)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"https?://|#|mailto:", target):
            yield f"links: `{target}` is relative, which Colab can't open; run `make links`"
        for place in links.places(target, about):
            if not (root / place).exists() and path.is_relative_to(root):
                yield f"links: there is no {place}"


def _imports(code: str) -> set[str]:
    """What a piece of code imports: whole module names and their first parts."""
    modules = set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return modules | {module.split(".")[0] for module in modules}


def _tags(cell: dict) -> list[str]:
    return cell["metadata"].get("tags", [])


def main(arguments: list[str], root: Path = links.ROOT) -> int:
    paths = [Path(argument).resolve() for argument in arguments] or links.notebooks(root)
    breaches = [
        f"{path.relative_to(root) if path.is_relative_to(root) else path}: {breach}"
        for path in paths
        for breach in check_notebook(path, root)
    ]
    for breach in breaches:
        print(breach)
    return int(bool(breaches))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
