"""The cells of snippets.ipynb: each tagged cell of the notebooks with the lines that it needs.

A snippet is the heading above the cells tagged `template`, the lines that make the names they read
(cut out of the cells before), and the cells themselves. What needs the cloud is not made again but
looked up by name, as the next notebook would do it.
"""

import ast
import builtins
import sys

import links
import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

# What a stage hands over, and how the next one finds it; in the order in which they can be.
FOUND = {
    "session": 'session = helpers.connect("local")  # or "google", project=…, bucket=…',
    "ENDPOINT_NAME": 'ENDPOINT_NAME = "earnings_prediction"',
    "job": "helpers.make_missing(session, job=True)  # on an empty local cloud\n"
    "job = helpers.find_job(session)  # the newest",
    "endpoint": "helpers.make_missing(session, model=ENDPOINT_NAME, endpoint=ENDPOINT_NAME)\n"
    "endpoint = helpers.find_endpoint(session, ENDPOINT_NAME)",
}
MODEL = {  # from 03 on
    "model": "helpers.make_missing(session, model=MODEL_NAME)  # on an empty local cloud\n"
    "model = helpers.find_model(session, MODEL_NAME)"
}
HEADER = """\
# Snippets

[![Open In Colab]({badge})]({address})

The cells of the notebooks that are worth copying, each with all that it needs: with the set-up \
cell above it, it runs by itself. It needs no account, and leaves behind what its notebook \
leaves. To have them all in Colab's snippet pane (`<>`), give this page's address to Tools → \
Settings → Site → Custom snippet notebook URL.

**Time and cost:** seconds each. On the local cloud nothing leaves this machine."""
SET_UP = """\
# Set up colab-to-cloud

Installs this release in Colab and finds the package elsewhere; once, above the other snippets. \
Those about jobs, models and endpoints use what is there under the names in them; on an empty \
local cloud they make it, with few epochs."""


def cells(root, stages) -> list[NotebookNode]:
    """The cells, from the notebooks named in `stages`."""
    about = links.project(root)
    address = links.colab(about, "notebooks/snippets.ipynb")
    made = [
        new_markdown_cell(HEADER.format(badge=links.BADGE, address=address)),
        new_markdown_cell(SET_UP),
        new_code_cell(links.bootstrap(about), metadata=links.BOOTSTRAP_METADATA),
    ]
    for stage in stages:
        source = nbformat.read(root / "notebooks" / f"{stage}.ipynb", as_version=4).cells
        made += _of_notebook(source, FOUND | (MODEL if "03" < stage < "1" else {}))
    return made


def _of_notebook(source: list[NotebookNode], found: dict[str, str]) -> list[NotebookNode]:
    title, made, heading = source[0].source.splitlines()[0].removeprefix("# "), [], None
    for number, cell in enumerate(source):
        if cell.cell_type == "markdown":
            heading = cell.source
        elif "template" in cell.metadata.get("tags", []):
            if heading:
                name, _, about = heading.removeprefix("## ").partition("\n")
                made.append(new_markdown_cell(f"# {title}: {name[0].lower()}{name[1:]}\n{about}"))
                rest = [c.source for c in _run(source[number:])]
                lines = needed(source[:number], "\n".join(rest), found)
                made += [new_code_cell("\n".join(lines))] if lines else []
            made.append(new_code_cell(cell.source))
            heading = None
    return made


def _run(source: list[NotebookNode]) -> list[NotebookNode]:
    """The tagged cells up to the next heading."""
    end = next((n for n, cell in enumerate(source) if cell.cell_type == "markdown"), len(source))
    return [cell for cell in source[:end] if "template" in cell.metadata.get("tags", [])]


def needed(before: list[NotebookNode], code: str, found: dict[str, str]) -> list[str]:
    """The lines of the cells `before` (or of `found`) that make the names `code` reads."""
    statements = []
    for number, cell in enumerate(before):
        tags = cell.metadata.get("tags", [])
        if cell.cell_type == "code" and "bootstrap" not in tags:
            for node in ast.parse(cell.source).body:
                text = "\n".join(cell.source.splitlines()[node.lineno - 1 : node.end_lineno])
                form = "parameters" in tags
                statements.append((node, text.partition("  # @param")[0], number, form))
    modules = {name for node, *_ in statements if _imports(node) for name in _names(node, True)}
    tree = ast.parse(code)
    wanted, cells_used = set(), set()
    parts: dict[str, list[str]] = {"imports": [], "forms": [], "found": [], "rest": []}

    def want(names: set[str]) -> None:
        for name in names - wanted - set(dir(builtins)):
            wanted.add(name)
            if name in found:
                want(_names(ast.parse(found[name]), False))

    want(_names(tree, False) - _names(tree, True))
    for node, text, number, form in reversed(statements):
        made, on = _names(node, True), _called_on(node)
        changes = on & (wanted - modules - set(found)) or (number in cells_used and on & modules)
        if made & set(found) or not (made & wanted or changes):
            continue
        if not _imports(node):
            cells_used.add(number)
        wanted -= made
        want(_names(node, False))
        parts["imports" if _imports(node) else "forms" if form else "rest"].insert(0, text)
    parts["found"] = [line for name, line in found.items() if name in wanted]
    imports = "\n\n".join("\n".join(group) for group in _groups(parts.pop("imports")))
    lines = [line for part in parts.values() for line in part]
    return [imports, "", *lines] if imports else lines


def _order(line: str) -> tuple:
    return line.startswith("from"), line


def _groups(lines: list[str]) -> list[list[str]]:
    """Imports as formatters want them: Python's own, other packages', this project's."""
    names: dict[str, set[str]] = {}  # "from helpers" -> {"baselines", "data"}
    for line in lines:
        start, _, what = line.rpartition("import ")
        names.setdefault(start or line, set()).update([what] if start else [])
    whole = [f"{start}import {', '.join(sorted(w))}" if w else start for start, w in names.items()]
    groups: list[list[str]] = [[], [], []]
    for line in sorted(whole, key=_order):
        package = line.split()[1].split(".")[0]
        groups[2 if package == "helpers" else package not in sys.stdlib_module_names].append(line)
    return [group for group in groups if group]


def _names(tree: ast.AST, made: bool) -> set[str]:
    """The names that code makes, or reads."""
    nodes = list(ast.walk(tree))
    kind = ast.Store if made else ast.Load
    names = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, kind)}
    if made:
        aliases = [a for n in nodes if _imports(n) for a in n.names]
        names |= {(alias.asname or alias.name).split(".")[0] for alias in aliases}
    return names


def _imports(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _called_on(node: ast.AST) -> set[str]:
    """What a statement calls a method of, and so may change: `model.compile(…)` → {"model"}."""
    if isinstance(node, ast.With):
        return set().union(*map(_called_on, node.body))
    root = getattr(getattr(node, "value", None), "func", None)
    if not isinstance(node, ast.Expr | ast.Assign) or not isinstance(root, ast.Attribute):
        return set()
    if isinstance(node, ast.Assign) and not isinstance(root.value, ast.Name):
        return set()
    while isinstance(root, ast.Attribute):
        root = root.value
    return {root.id} if isinstance(root, ast.Name) else set()
