"""Write the generated notebooks from the tagged cells of the others.

    python .ci/generate_notebooks.py           write them
    python .ci/generate_notebooks.py --check   exit 1 and name the ones that are out of date

`quickstart.ipynb`: the cells tagged `quickstart` of 01 to 04, each with the heading above it; one
parameters cell with the parameters those cells use, as the first notebook that has one sets it:
eight fields, and the rest below them, as code.
`snippets.ipynb`: the cells tagged `template`, each with the lines it needs (see snippets.py).
"""

import ast
import sys
from pathlib import Path

import links
import nbformat
import snippets
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

# In the order of the road, with the sentence that leads over to each.
STAGES = {
    "01_prototype": "**Stage 1 of 4: prototype**, in this kernel, on this machine.",
    "02_train": "**Stage 2 of 4: train on the cloud.** A job now runs the notebook "
    "`01_prototype.ipynb`, which holds the same cells as stage 1.",
    "03_deploy": "**Stage 3 of 4: deploy.** The registered version gets an address.",
    "04_predict": "**Stage 4 of 4: predict**, with rows the model has not seen.",
}
# What most people want to set, as fields; whatever else the cells use stands below.
FIELDS = ("CLOUD", "PROJECT", "BUCKET", "DATA", "TARGET", "EPOCHS", "MODEL_NAME", "CLEAN_UP")
MORE = "# @markdown **More** is in this cell's code (double-click): `{first}` to `{last}`"
# Their cells become snippets only.
KINDS = ("more/image", "more/text", "more/series", "more/any_model")
# Where the first notebook's default is not the one wanted here.
OWNER = {"CLEAN_UP": "04_predict"}
HEADER = """\
# The whole road in one tab

[![Open In Colab]({badge})]({address})

![The road: prototype, train as a job, register, deploy, predict]({road})

Takes a table from a first look to a model that answers predictions: prototype, train as a job, \
register, deploy, predict. It needs nothing: with `CLOUD = "local"` the cloud is a server on this \
machine that speaks Google's own API. It leaves a registered model, and says what remains.

**Time and cost:** about two minutes on the local cloud: no account, nothing leaves this machine. \
On Google half an hour; the job and the endpoint bill until the last cell has run."""
PARAMETERS = """\
## Parameters

Run it as it is, or name your own table. Each stage also stands alone in its own notebook, \
01 to 04, with every choice explained."""
CONNECT = """\
## Connect

The only cell that knows where calls go; everything below it is the same on both clouds. It shows \
what bills there already."""
CONNECT_CODE = """\
import helpers

ENDPOINT_NAME = ENDPOINT_NAME or MODEL_NAME
session = helpers.connect(CLOUD, project=PROJECT, location=LOCATION, bucket=BUCKET)
print(session)
helpers.costs(session)"""


def has(cell: NotebookNode, tag: str) -> bool:
    """Whether a cell is a code cell with this tag."""
    return cell.cell_type == "code" and tag in cell.metadata.get("tags", [])


def chosen(cells: list[NotebookNode]) -> list[NotebookNode]:
    """The cells tagged `quickstart`, each after the heading directly above it."""
    kept = []
    for above, cell in zip([None, *cells], cells, strict=False):
        if has(cell, "quickstart"):
            if above is not None and above.cell_type == "markdown":
                kept.append(new_markdown_cell(above.source))
            tags = [t for t in cell.metadata["tags"] if t not in ("quickstart", "template")]
            kept.append(new_code_cell(cell.source, metadata={"tags": tags} if tags else {}))
    return kept


def form_lines(cells: list[NotebookNode]) -> dict[str, tuple[str, str]]:
    """Name -> line of a notebook's parameters cell, and the words that explain it."""
    lines, above = {}, ""
    for cell in cells:
        if has(cell, "parameters"):
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    above = line.removeprefix("# @markdown ")
                    continue
                value, _, words = line.partition("  # ")
                field = words.startswith("@param")
                name, said = line.split(" = ")[0], above if field else words
                lines[name] = (line if field else value, said)
                above = ""
    return lines


def form(lines: dict[str, tuple[str, str]]) -> str:
    """The parameters cell: the fields, each below its words, and the rest folded with the code."""
    fields = [f"# @markdown {lines[name][1]}\n{lines[name][0]}" for name in FIELDS]
    rest = [name for name in lines if name not in FIELDS]
    below = []
    for name in rest:
        value, words = lines[name][0].partition("  # @param")[0], lines[name][1].rstrip(".")
        below.append(f"{value}  # {words[:1].lower()}{words[1:]}")
    more = MORE.format(first=rest[0], last=rest[-1])
    return "\n".join(["# @title Parameters", *fields, more, *below])


def names_used(cells: list[NotebookNode]) -> set[str]:
    """Every name that code cells read."""
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    nodes = ast.walk(ast.parse(code))
    return {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}


def quickstart(root: Path = links.ROOT) -> str:
    """The JSON of quickstart.ipynb."""
    about, road, forms = links.project(root), [], {}
    for name, lead in STAGES.items():
        cells = nbformat.read(root / "notebooks" / f"{name}.ipynb", as_version=4).cells
        road += [new_markdown_cell(lead), *chosen(cells)]
        forms[name] = form_lines(cells)
    connect = new_code_cell(CONNECT_CODE)
    used = names_used([connect, *road])
    merged: dict[str, tuple[str, str]] = {}
    for name in STAGES:
        for parameter in forms[name]:
            if parameter in used:
                merged.setdefault(parameter, forms[OWNER.get(parameter, name)][parameter])
    address, road_svg = links.colab(about, "notebooks/quickstart.ipynb"), "docs/road.svg"
    header = HEADER.format(badge=links.BADGE, address=address, road=links.raw(about, road_svg))
    cells = [
        new_markdown_cell(header),
        new_markdown_cell(PARAMETERS),
        new_code_cell(form(merged), metadata={"tags": ["parameters"], "cellView": "form"}),
        new_code_cell(links.bootstrap(about), metadata=links.BOOTSTRAP_METADATA),
        new_markdown_cell(CONNECT),
        connect,
        *road,
    ]
    return written(cells, "quickstart", about)


def written(cells: list[NotebookNode], name: str, about: dict[str, str]) -> str:
    """The JSON of a notebook with these cells."""
    for number, cell in enumerate(cells):
        cell.id = f"{name}-{number:02d}"
    metadata = {
        "colab": links.colab_metadata(about),
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return nbformat.writes(new_notebook(cells=cells, metadata=metadata)) + "\n"


def main(arguments: list[str], root: Path = links.ROOT) -> int:
    made = {
        "quickstart": quickstart(root),
        "snippets": written(
            snippets.cells(root, [*STAGES, *KINDS]), "snippets", links.project(root)
        ),
    }
    differing = False
    for name, wanted in made.items():
        path = root / "notebooks" / f"{name}.ipynb"
        same = path.is_file() and path.read_text(encoding="utf-8") == wanted
        if "--check" not in arguments:
            path.write_text(wanted, encoding="utf-8")
        elif not same:
            differing = True
            print(f"notebooks/{name}.ipynb: differs from the others' cells; run `make notebooks`")
    return int(differing)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
