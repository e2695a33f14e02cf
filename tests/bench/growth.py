"""How cost grows with work: rows, columns and machines; each line is a process of its own, or
several that train together."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.emulator.services import ports
from tests.bench import alone

BATCH_SIZE, EPOCHS = 1024, 3
SIZES = [(1_000, 10), (10_000, 10), (100_000, 10), (1_000_000, 10), (10_000, 100), (100_000, 100)]
MACHINES, SIZE = (2, 3), (100_000, 10)
NOTE = """Tables of numbers, one of the columns the target; batches of 1,024 rows a
machine; one turn. `data.load` reads the CSV file, decides what each column is and splits the rows.
`before the first epoch` is the model built and traced. An epoch is what one more costs. The
machines of a line are processes that share these two cores, join by `helpers.strategy` and average
their gradients after every step: what they show is the price of that, not its use. Peak memory is
that of the largest process, some 600 MB of it TensorFlow and this project."""


def rows() -> list[dict]:
    lines = []
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        for (size, columns), machines in [*((s, 1) for s in SIZES), *((SIZE, m) for m in MACHINES)]:
            csv = Path(folder, f"{size}-{columns}.csv")
            if not csv.exists():
                _table(size, columns).to_csv(csv, index=False)
            found = _trained(csv, machines)
            lines.append({
                "rows": f"{size:,}", "columns": columns, "machines": machines,
                "data.load s": f"{found['read_s']:.2f}",
                "before the first epoch s": f"{found['start_s']:.1f}",
                "an epoch s": f"{found['epoch_s']:.3f}",
                "examples/s": f"{found['rows'] / found['epoch_s']:,.0f}",
                "peak MB": f"{found['peak_mb']:,.0f}",
            })  # fmt: skip
    return lines


def _table(size: int, columns: int) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(size, columns - 1)).round(3)
    frame = pd.DataFrame(x, columns=[f"x{i}" for i in range(columns - 1)])
    return frame.assign(y=(x @ rng.normal(size=columns - 1) + rng.normal(size=size)).round(3))


def _trained(csv: Path, machines: int) -> dict:
    """What the first of the machines measured; the largest of their memories."""
    addresses = [f"127.0.0.1:{port}" for port in ports.free(machines)]
    command = [sys.executable, "-m", "tests.bench.growth", str(csv)]
    begun = []
    for index in range(machines):
        task = {"type": "worker", "index": index}
        cluster = {"cluster": {"worker": addresses}, "task": task}
        more = {"TF_CONFIG": json.dumps(cluster)} if machines > 1 else {}
        begun.append(subprocess.Popen(command, env=os.environ | more, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL, text=True))  # fmt: skip
    said = [process.communicate(timeout=300)[0] for process in begun]
    if any(process.returncode for process in begun):
        raise RuntimeError(f"a machine failed: {said}")
    found = [json.loads(text.splitlines()[-1]) for text in said]
    return found[0] | {"peak_mb": max(one["peak_mb"] for one in found)}


def main(csv: str) -> None:
    from helpers import data

    start = time.perf_counter()
    table = data.load(csv)
    read_s = time.perf_counter() - start
    import keras

    import helpers

    cluster = json.loads(os.environ.get("TF_CONFIG", "{}")).get("cluster", {})
    machines = len(cluster.get("worker", [0]))
    batch_size = BATCH_SIZE * machines
    steps = -(-len(table.train) // batch_size)
    start = time.perf_counter()
    with helpers.strategy().scope():
        inputs, x = helpers.encode(table)
        for units in (50, 100, 50):
            x = keras.layers.Dense(units, activation="relu")(x)
        model = keras.Model(inputs, helpers.decode(table, x))
        model.compile("adam", "mse", steps_per_execution=helpers.steps_per_execution(steps))
        model.optimizer.build(model.trainable_variables)
    fed = helpers.batches(table, table.train, batch_size=batch_size, seed=0)

    def fit(epochs: int) -> float:
        start = time.perf_counter()
        model.fit(fed, steps_per_epoch=steps, epochs=epochs, verbose=0)
        return time.perf_counter() - start

    fit(1)
    start_s, once = time.perf_counter() - start, fit(1)
    epoch_s = (fit(1 + EPOCHS) - once) / EPOCHS
    found = {"read_s": read_s, "start_s": start_s, "epoch_s": epoch_s, "peak_mb": alone.peak_mb()}
    print(json.dumps(found | {"rows": len(table.train)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
