"""Tables with texts through an endpoint, and a large file through a batch prediction job."""

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

import helpers
from tests.bench import served

ROWS, FILE_ROWS, ROUNDS = 200_000, 1_000_000, 3
NOTE = """Rows a second, medians of three turns, the ways taking turns. The table has three text
columns and one of numbers. In-process is the same model on one thread: over 20,000 rows at once in
memory; and as a program that reads the file of JSON lines, 20,000 at once, and writes one of
answers, its start included. A batch prediction job does the same from one address in a bucket to
another, its start included, and checks and counts every row. Peak memory is that of the local cloud
and its processes, what they share counted once, with the process that has TensorFlow imported. What
bounds `helpers.predict` of texts: a row takes 0.54 µs of processor time in the model server, 0.42
of it the model's own, and 0.35 in the client, which sends each text once and its place in every
row; on two cores that is two thirds of in-process at best. Tried: texts as JSON columns, a sixth
as many rows a second."""
TABLE = """
import sys, keras, helpers
from helpers import data
table = data.load(sys.argv[1], target="price")
inputs, x = helpers.encode(table)
for units in (50, 50):
    x = keras.layers.Dense(units, activation="relu")(x)
helpers.export(keras.Model(inputs, helpers.decode(table, x)), table, sys.argv[2])
"""
LOAD = """
import sys, time, orjson
import numpy as np
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from saved_model import load
one = load(Path(sys.argv[2]))[1]["serving_default"]
def call(rows):
    return one.call(*[s.array([r[n] for r in rows]) for n, s in one.inputs.items()])[0]
"""
IN_MEMORY = """
columns = [np.array(v, object if s.dtype == "string" else "float32")
           for v, s in zip(orjson.loads(Path(sys.argv[3]).read_bytes()), one.inputs.values())]
one.call(*columns)
start, calls = time.perf_counter(), 0
while time.perf_counter() < start + 2:
    one.call(*columns)
    calls += 1
print(calls * len(columns[0]) / (time.perf_counter() - start))
"""
FILE_TO_FILE = """
import itertools
with open(sys.argv[3], "rb") as source, open(sys.argv[4], "wb") as target:
    while lines := list(itertools.islice(source, 20_000)):
        answers = call([orjson.loads(line) for line in lines])
        for line, answer in zip(lines, map(orjson.dumps, answers.tolist())):
            target.write(b'{"instance":%b,"prediction":%b}\\n' % (line.strip(), answer))
"""


def rows() -> list[dict]:
    """One row a job and way: `what`, `way`, `rows/s`, `of in-process`, `peak MB`."""
    draw = np.random.default_rng(0)
    table = pd.DataFrame({
        "city": draw.choice(["rome", "oslo", "bern", "lima"], ROWS),
        "color": draw.choice(["red", "blue"], ROWS), "kind": draw.choice([*"abcdef"], ROWS),
        "size": draw.normal(50, 10, ROWS).round(2), "price": draw.normal(100, 20, ROWS).round(2),
    })  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        made, source = Path(folder, "model"), Path(folder, "table.csv")
        table.head(5_000).to_csv(source, index=False)
        subprocess.run([sys.executable, "-c", TABLE, source, made], check=True, cwd=served.ROOT)
        with served.place(Path(folder, "cloud")) as session:
            uri = helpers.storage.upload_folder(session, made, "gs://local-bucket/m/model")
            model = helpers.register(session, uri, name="mixed")
            frame = table.drop(columns="price")
            return _texts(session, model, frame, made) + _files(session, model, frame, made, folder)


def _texts(session, model, frame: pd.DataFrame, made: Path) -> list[dict]:
    endpoint = helpers.deploy(session, model)
    values = [frame[name].head(20_000).tolist() for name in sorted(frame)]
    part = made.with_name("columns.json")
    part.write_text(json.dumps(values))
    helpers.predict(endpoint, frame)
    runs = {"helpers.predict": [], "in-process": []}
    with _watched(psutil.Process(_pid())) as peak_mb:
        for _ in range(ROUNDS):
            start = time.perf_counter()
            helpers.predict(endpoint, frame)
            runs["helpers.predict"].append(ROWS / (time.perf_counter() - start))
            runs["in-process"].append(float(_program(IN_MEMORY, made, part)))
    return _lines("three text columns, 200,000 rows", runs, {"helpers.predict": peak_mb[0]})


def _files(session, model, frame: pd.DataFrame, made: Path, folder: str) -> list[dict]:
    source, target = Path(folder, "rows.jsonl"), Path(folder, "answers.jsonl")
    text = frame.to_json(orient="records", lines=True)
    source.write_text(text * (FILE_ROWS // ROWS))
    uri = helpers.storage.upload_folder(session, _only(source), "gs://local-bucket/rows")
    runs, peaks = {"batch prediction job": [], "in-process": []}, {}
    for _ in range(ROUNDS):
        with _watched(psutil.Process(_pid())) as peak_mb:
            start = time.perf_counter()
            helpers.batch_predict(session, model, f"{uri}rows.jsonl", batch_size=1024)
            runs["batch prediction job"].append(FILE_ROWS / (time.perf_counter() - start))
        peaks["batch prediction job"] = max(peaks.get("batch prediction job", 0), peak_mb[0])
        start = time.perf_counter()
        _program(FILE_TO_FILE, made, source, target)
        runs["in-process"].append(FILE_ROWS / (time.perf_counter() - start))
    return _lines("1,000,000 rows, file to file", runs, peaks)


def _lines(what: str, runs: dict, peaks: dict) -> list[dict]:
    def ratio(found: list[float]) -> str:
        turns = [a / b for a, b in zip(found, runs["in-process"], strict=True)]
        return f"{statistics.median(turns):.2f} ({min(turns):.2f} to {max(turns):.2f})"

    return [
        {
            "what": what, "way": way, "rows/s": f"{statistics.median(found):,.0f}",
            "of in-process": "1" if way == "in-process" else ratio(found),
            "peak MB": round(peaks[way]) if way in peaks else "",
        }
        for way, found in runs.items()
    ]  # fmt: skip


def _program(code: str, made: Path, *arguments: Path) -> str:
    command = [sys.executable, "-c", LOAD + code, served.SERVERS, made, *arguments]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout.strip()


def _only(path: Path) -> Path:
    """A folder that holds this file alone."""
    folder = path.with_suffix("")
    folder.mkdir()
    os.link(path, folder / path.name)
    return folder


def _pid() -> int:
    return json.loads(Path(os.environ["LOCAL_CLOUD_DIR"], "emulator.json").read_text())["pid"]


@contextlib.contextmanager
def _watched(process: psutil.Process):
    """The most memory, in MB, that a process and its family had meanwhile; in a list of one."""
    peak_mb, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            size = 0
            for one in [process, *process.children(recursive=True)]:
                with contextlib.suppress(psutil.Error):
                    size += one.memory_full_info().pss
            peak_mb[0] = max(peak_mb[0], size / 1e6)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak_mb
    finally:
        done.set()
        thread.join()
