"""What Colab's front end draws of an executed notebook, and what it does not."""

import re
from collections.abc import Iterator

DRAWN = {"text/plain", "text/html", "text/markdown", "image/png"}
ROWS, COLUMNS = 60, 20  # what pandas shows of a frame by itself


def undrawable(notebook) -> list[str]:
    """Outputs that Colab leaves empty (widgets, scripts, frames), or tables too large to read."""
    found = []
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            markup = data.get("text/html", "")
            kinds = set(data) - DRAWN | set(re.findall(r"<(script|iframe|object|embed)\b", markup))
            found += [f"cell {number}: {kind}" for kind in sorted(kinds)]
            head, _, body = markup.partition("</thead>")
            if body.count("<tr") > ROWS + 1 or head.count("<th>") > COLUMNS + 2:
                found.append(f"cell {number}: a table over {ROWS} rows or {COLUMNS} columns")
    return found


def alarming(notebook) -> list[str]:
    """What a reader takes for a fault: warnings, log lines, whatever is written to stderr."""
    found = []
    for number, text, name in _seen(notebook):
        lines = [line for line in text.splitlines() if name == "stderr" or ALARMS.search(line)]
        found += [f"cell {number}: {line[:200]}" for line in lines if line.strip()]
    return found


def raw(notebook) -> list[str]:
    """Outputs that are neither a sentence nor a small formatted table nor a picture."""
    found = []
    for number, text, kind in _seen(notebook):
        if kind == "text/plain":  # the object as Python writes it, as there is nothing better
            found.append(f"cell {number}: {text[:80]}")
        elif kind in ("stdout", "stderr") and text.count("\n") > LINES:
            found.append(f"cell {number}: {text.count(chr(10))} lines")
        parts = [match[0] for match in REPRS.finditer(text)]
        text = re.sub(r'"[^"\n]*"', "", text)  # what a reader's own data holds, quoted
        parts += [n for n in NUMBERS.findall(text) if len(re.sub(r"\D", "", n).lstrip("0")) > 6]
        found += [f"cell {number}: {part}" for part in parts]
    return found


ALARMS = re.compile(r"[Ww]arning|WARNING|\b[IWE]0000 |tensorflow/core/|INFO:|Traceback")
REPRS = re.compile(
    r"dtype:|Empty DataFrame|\bobject at 0x\w+|\bNaN\b|\bnan\b|\{'\w+':|\barray\(|Timestamp\("
    r"|\b\w+\(\w+='|<\w+ \d+x\d+"
)
NUMBERS = re.compile(r"(?<![\w.:/])\d[\d,]*\.\d+(?![\w.:/])")
LINES = 25


def _seen(notebook) -> Iterator[tuple[int, str, str]]:
    """(cell, text, stream or kind) of every output, as an editor chooses among its kinds."""
    for number, cell in enumerate(notebook.cells):
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if output.output_type == "stream":
                drawn = re.sub(r"[^\n]*\r(?!\n)", "", output.text)  # of a bar, its last state
                yield number, drawn, output.name
            elif "text/html" in data:
                yield number, re.sub(r"<[^>]*>", " ", data["text/html"]), "text/html"
            elif "text/markdown" in data:
                yield number, data["text/markdown"], "text/markdown"
            elif data and not any(kind.startswith("image/") for kind in data):
                yield number, data.get("text/plain", ""), "text/plain"
