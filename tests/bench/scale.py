"""Training on larger tables: examples a second and peak memory, each turn a process of its own."""

import dataclasses
import gc
import statistics
import tempfile
from pathlib import Path

import numpy as np

from helpers import data
from tests.bench import alone

SIZES = {100_000: (1024, 10, 7), 2_000_000: (4096, 2, 5)}  # rows -> rows a batch, epochs, turns
WAYS = ("article", "ours", "ours, streamed from CSV files", "limit")
NOTE = """The built-in table's rows drawn again and again; batches of 1,024 rows (100,000) and of
4,096 (2 million). Seven and five turns, each a process of its own, the ways interleaved; medians,
also of the ratios, which are taken turn by turn, with the smallest and the largest of them.
Tracing, and for files the one time they are read, is left out, and Python's look for garbage, which
takes as long as three epochs and comes now in one way's turn, now in another's. Peak memory is the
whole process's, about 700 MB of it TensorFlow and this project; ours and the article's way have the
table in memory, once as pandas and once as tensors, the streamed one a sample. What bounds ours:
making batches takes a tenth of the processor time that training takes (0.08 s a million rows in
memory, 0.12 s streamed, of 0.8 s), on the two cores that the steps use, too; the limit gathers rows
inside its graph and names no columns. Tried without gain: smaller and larger pieces, a piece made
ahead of its use, columns taken apart after batching instead of before."""


def rows() -> list[dict]:
    """One row a size and way."""
    lines = []
    with tempfile.TemporaryDirectory(prefix="scale-") as folder:
        for size, (batch_size, epochs, turns) in SIZES.items():
            table = _grown(size)
            for i, part in enumerate(np.array_split(np.arange(size), 10)):
                csv = table.train.iloc[part].to_csv(index=False)
                Path(folder, f"{size}-{i}.csv").write_text(csv)
            runs = {way: [] for way in WAYS}
            for _ in range(turns):
                for way in WAYS:
                    source = f"{folder}/{size}-*.csv" if "files" in way else str(size)
                    asked = way.split(",")[0], source, batch_size, epochs
                    runs[way].append(alone.run(measure, *asked))
            for way, found in runs.items():

                def of(other: str, found=found, runs=runs) -> str:  # turn by turn
                    pairs = zip(found, runs[other], strict=True)
                    turns = [a["per_s"] / b["per_s"] for a, b in pairs]
                    return f"{statistics.median(turns):.2f} ({min(turns):.2f} to {max(turns):.2f})"

                per_s = statistics.median(run["per_s"] for run in found)
                lines.append({
                    "rows": f"{size:,}", "way": way, "examples/s": f"{per_s:,.0f}",
                    "of the article's": of("article"), "of the limit": of("limit"),
                    "peak MB": round(statistics.median(run["peak_mb"] for run in found)),
                })  # fmt: skip
    return lines


def _grown(size: int) -> data.Table:
    table = data.load("game_sales")
    place = np.random.default_rng(0).integers(0, len(table.train), size)
    return dataclasses.replace(table, train=table.train.iloc[place].reset_index(drop=True))


def measure(way: str, source: str, batch_size: int, epochs: int) -> dict[str, float]:
    from tests.bench import train

    table = data.load(source) if "*" in source else _grown(int(source))
    train_it, seen = getattr(train, way), len(data.rows(table))
    gc.disable()  # a look through all objects of TensorFlow takes as long as three epochs
    train_it(table, 1, batch_size)  # what only the first training of a process takes
    first, _ = train_it(table, 1, batch_size)
    second, _ = train_it(table, 1 + epochs, batch_size)
    return {"per_s": seen * epochs / (second - first), "peak_mb": alone.peak_mb()}
