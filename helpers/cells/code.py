"""The code of a notebook's cells as plain Python."""

import ast
import re
from collections.abc import Iterator

import nbformat

PYTHON_MAGICS = ("%%time", "%%capture")  # the cell below them is plain Python
NO_PYTHON = re.compile(r"^\s*[%!?]|[?]\s*$|=\s*[%!]", re.MULTILINE)


def plain(source: str) -> tuple[str, list[str]]:
    """A cell without magics and shell lines, as IPython itself finds them (never in strings)."""
    if not NO_PYTHON.search(source):
        return source, []
    from IPython.core import inputtransformer2 as ipython

    lines = source.strip("\n").splitlines(keepends=True)
    left_out = []
    if lines and lines[0].startswith("%%"):
        if not lines[0].startswith(PYTHON_MAGICS):
            return "", [f"{lines[0].strip()} (the whole cell)"]
        left_out.append(lines.pop(0).strip())
    kinds = (
        ipython.MagicAssign, ipython.SystemAssign, ipython.EscapedCommand, ipython.HelpEnd,
    )  # fmt: skip
    while True:
        tokens = ipython.make_tokens_by_line(lines)
        found = [hit for hit in (kind.find(tokens) for kind in kinds) if hit]
        if not found:
            return "".join(lines), left_out
        start = min(hit.start_line for hit in found)
        end = ipython.find_end_of_continued_line(lines, start) + 1
        left_out.append("".join(lines[start:end]).strip())
        indent = re.match(r"\s*", lines[start])[0]
        lines[start:end] = [f"{indent}pass\n"]


def trees(notebook: nbformat.NotebookNode) -> Iterator[tuple[int, ast.Module]]:
    """Each code cell that is Python, with its number counted from 1."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    for number, source in enumerate(code, 1):
        try:
            yield number, ast.parse(plain(source)[0])
        except SyntaxError:
            continue  # it will raise where it runs, in words of Python's own


def submits_itself(notebook: nbformat.NotebookNode, name: str) -> tuple[int, str]:
    """Which cell submits this very notebook as a job, and by which verb; (0, "") when none does.

    A call under an `if` or in a function does not count: whoever wrote that thought of the job.

    Args:
        name: the notebook's, without its suffix.
    """
    known: dict[str, ast.expr] = {}
    places: dict[str, str] = {"helpers": "helpers"}
    for number, tree in trees(notebook):
        for statement in tree.body:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                origin = f"{statement.module}." if isinstance(statement, ast.ImportFrom) else ""
                for alias in statement.names:
                    places[alias.asname or alias.name] = origin + alias.name
            if isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                known[statement.targets[0].id] = statement.value
            if isinstance(statement, ast.If | ast.FunctionDef | ast.ClassDef | ast.For):
                continue
            for call in (node for node in ast.walk(statement) if isinstance(node, ast.Call)):
                verb = _verb(call, places)
                given = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "notebook")]
                if verb in ("train", "tune") and given and _means(given[0], known, places, name):
                    return number, verb
    return 0, ""


def _verb(call: ast.Call, places: dict[str, str]) -> str:
    """The name of a public function of helpers that is called, or ""."""
    first, _, rest = ast.unparse(call.func).partition(".")
    module, _, verb = f"{places.get(first, '')}.{rest}".rstrip(".").partition(".")
    return verb if module == "helpers" else ""


def _means(node: ast.expr, known: dict, places: dict, name: str) -> bool:
    """Whether an expression stands for the notebook `name`, as far as can be read."""
    if isinstance(node, ast.Name) and node.id in known:
        return _means(known[node.id], known | {node.id: ast.Constant(None)}, places, name)
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return _stem(node.value) == _stem(name)
    if isinstance(node, ast.Call) and _verb(node, places) == "save_notebook":
        named = [*node.args[1:2], *(k.value for k in node.keywords if k.arg == "name")]
        return not named or _means(named[0], known, places, name)
    return False


def _stem(name: str) -> str:
    """A notebook's name without folder, suffix and the mark that `save_notebook` adds."""
    return re.sub(r"(-[0-9a-f]{12})?(\.ipynb)?$", "", name.rpartition("/")[2])
