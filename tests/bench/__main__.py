"""Measure everything side by side; write docs/benchmarks.md and README's table of sizes.

python -m tests.bench [a part …]
"""

import datetime
import importlib
import platform
import sys
from importlib import metadata
from pathlib import Path

import psutil

from tests.bench import sizes

PAGE = sizes.PAGE
PARTS = {
    "first": "From an empty machine to the first served prediction",
    "drive": "`make run`, and a training job's time",
    "tables": "Reading a table",
    "train": "Training at the 2020 article's size (1,000 × 9 rows, batch 32, 50 epochs)",
    "scale": "Training on larger tables",
    "growth": "How cost grows with rows, columns and machines",
    "kinds": "Pictures and texts",
    "serve": "One row a request",
    "bulk": "Many rows",
    "mixed": "Texts in a table, and a file of a million rows",
    "resources": "The local cloud by itself",
}


def machine() -> str:
    """One line: what it was measured on."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []:
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    memory = psutil.virtual_memory().total / 2**30
    packages = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "orjson", "uvicorn")
    known = {d.name.lower().replace("_", "-") for d in metadata.distributions()}
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages if name in known)
    return (
        f"{psutil.cpu_count()} × {model}, {memory:.0f} GB, Python {platform.python_version()}, "
        f"{versions}"
    )


def table(rows: list[dict]) -> str:
    """Rows as a Markdown table."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(row.values() for row in rows)]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def main(names: list[str]) -> int:
    """Run the parts that are named, or all; the page holds what this run measured."""
    sections = []
    for name in names or PARTS:
        part = importlib.import_module(f"tests.bench.{name}")
        text = f"## {PARTS[name]}\n\n{table(part.rows())}\n\n{part.NOTE}\n"
        print(text, flush=True)
        sections.append(text)
    if not names:  # a part alone is a look; the page is one run
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        head = f"# Benchmarks\n\n`make bench` on {today}: {machine()}.\n"
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text("\n".join([head, *sections]))
        sizes.write()
        print(f"Written: {PAGE}, and README's table of sizes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
