"""What Colab's front end draws of an executed notebook, and what it does not."""

import re

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
