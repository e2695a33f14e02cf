"""README's table of sizes from docs/benchmarks.md: python -m tests.bench.sizes"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
README, PAGE = ROOT / "README.md", ROOT / "docs" / "benchmarks.md"
AT = "{0[examples/s]} examples/s, {0[of the limit]} of a hand-written loop, peak {0[peak MB]} MB"
# A row's first cell → its measured one, filled with rows of the page, chosen by their first cells.
CELLS = {
    "up to some 10,000 rows": (
        "50 epochs over 1,000 rows in {0[seconds]} s, of `fit` on NumPy arrays {1[seconds]} s",
        [("ours: encode, batches, steps_per_execution",), ("article: fit on NumPy arrays",)],
    ),
    "100,000 rows": (AT, [("100,000", "ours")]),
    "millions, fit into memory": (f"{AT} at 2 million rows", [("2,000,000", "ours")]),
    "larger than memory": (
        f"{AT} at 2 million rows; under a cap of 200 MB a table of 2 GB trains",
        [("2,000,000", "ours, streamed from CSV files")],
    ),
    "unknown rates and sizes": (
        "8 trials of 10 epochs, and the best trained anew, in {0[seconds]} s",
        [("more/tune, 8 trials of 10 epochs, the best trained anew",)],
    ),
}


def filled(readme: str, page: str) -> str:
    """The README with the cells that this page gives."""
    rows = _rows(page)
    for name, (text, wanted) in CELLS.items():
        found = [next(row for row in rows if [*row.values()][: len(w)] == [*w]) for w in wanted]
        head = rf"(?m)^(\| {re.escape(name)} \|[^|]*\|)[^|]*\|"
        readme, count = re.subn(head, lambda m: f"{m[1]} {text.format(*found)} |", readme)  # noqa: B023
        if count != 1:
            raise ValueError(f"README.md has {count} rows that begin with {name!r}; expected one.")
    return readme


def _rows(page: str) -> list[dict[str, str]]:
    rows, names = [], None
    for line in page.splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if not cells:
            names = None
        elif names is None:
            names = cells
        elif set("".join(cells)) != {"-"}:
            rows.append(dict(zip(names, cells, strict=True)))
    return rows


def write() -> None:
    README.write_text(filled(README.read_text(), PAGE.read_text()))


if __name__ == "__main__":
    sys.exit(write())
