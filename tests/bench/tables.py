"""Reading a table: `data.load` beside `pandas.read_csv`, each turn a process of its own."""

import contextlib
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from tests.bench import alone

SIZES = {1_000: 5, 10_000: 5, 100_000: 5, 1_000_000: 3, 10_000_000: 1}  # rows -> turns
WITHIN_S = 0.5  # small files are read again for so long, and the fastest counts
NOTE = """A plain CSV file of six number columns and three text columns, 39 bytes a row.
`data.load` reads it, decides what every column holds, looks for columns that say nothing or repeat
the target, and splits the rows; `pandas.read_csv` only reads. Every turn is a process of its own,
the two interleaved; medians, the ratios taken turn by turn. Processor time stands beside the
clock's, because other work on the machine hurts the longer one more. Peak memory is the whole
process's, with what it imports before it reads. Of 1,000 rows 2 ms are what looking at nine
columns takes at any size."""


def rows() -> list[dict]:
    """One row a size: seconds and peak memory of both."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="tables-") as folder:
        for size, turns in SIZES.items():
            path = Path(folder, f"{size}.csv")
            _write(path, size)
            runs = {"load": [], "read_csv": []}
            for _ in range(turns):
                for way, found in runs.items():
                    command = [sys.executable, "-m", "tests.bench.tables", way, str(path)]
                    done = subprocess.run(command, check=True, capture_output=True, text=True)
                    found.append(json.loads(done.stdout.splitlines()[-1]))
            path.unlink()

            def middle(way: str, key: str, runs=runs) -> float:
                return statistics.median(run[key] for run in runs[way])

            def ratio(key: str, runs=runs) -> float:
                pairs = zip(runs["load"], runs["read_csv"], strict=True)
                return round(statistics.median(a[key] / b[key] for a, b in pairs), 2)

            lines.append({
                "rows": f"{size:,}",
                "data.load ms": f"{1000 * middle('load', 'seconds'):,.1f}",
                "read_csv ms": f"{1000 * middle('read_csv', 'seconds'):,.1f}",
                "ratio": ratio("seconds"), "of processor time": ratio("busy_s"),
                "data.load peak MB": f"{middle('load', 'peak_mb'):,.0f}",
                "read_csv peak MB": f"{middle('read_csv', 'peak_mb'):,.0f}",
                "ratio of peaks": ratio("peak_mb"),
            })  # fmt: skip
    return lines


def _write(path: Path, size: int) -> None:
    """A table of flats, a million rows at a time."""
    draw = np.random.default_rng(0)
    for start in range(0, size, 1_000_000):
        count = min(1_000_000, size - start)
        area = draw.normal(80, 20, count).round(1)
        cities = ["Basel", "Bern", "Chur", "Genf", "Lugano", "Sion", "Thun", "Zürich"]
        part = pd.DataFrame({
            "area": area, "rooms": draw.integers(1, 7, count), "floor": draw.integers(0, 20, count),
            "city": draw.choice(cities, count), "kind": draw.choice(["flat", "house"], count),
            "lift": draw.choice(["yes", "no"], count), "age": draw.integers(0, 120, count),
            "distance": draw.exponential(3, count).round(2),
            "price": (12 * area + draw.normal(0, 90, count)).round(2),
        })  # fmt: skip
        part.to_csv(path, index=False, header=not start, mode="a")


def main(way: str, path: str) -> None:
    if way == "load":
        from helpers import data

        read = data.load
    else:
        read = pd.read_csv
    clock, busy = [], []
    with contextlib.redirect_stdout(io.StringIO()):
        while sum(clock) < WITHIN_S:
            start = time.perf_counter(), time.process_time()
            read(path)
            clock.append(time.perf_counter() - start[0])
            busy.append(time.process_time() - start[1])
    print(json.dumps({"seconds": min(clock), "busy_s": min(busy), "peak_mb": alone.peak_mb()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
