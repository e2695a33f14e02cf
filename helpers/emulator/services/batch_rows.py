"""The rows of a batch prediction job: read from files, scored in batches, written in order."""

import asyncio
import csv
import functools
import itertools
import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson

from helpers.emulator.front.calls import ApiError, Cloud
from helpers.emulator.services import buckets

NAMES = ("prediction.results-00000-of-00001", "prediction.errors_stats-00000-of-00001")
BATCH_SIZE = 64  # [P] ManualBatchTuningParameters.batch_size
# [P] "If predictions for significant portion of the instances fail, the job may finish without
# attempting predictions for all remaining instances": here, when none of so many has succeeded.
HOPELESS = 1000
LINE_BYTES = 10_000_000
IN_FLIGHT, NOTED_S = 4, 0.5
MARKS = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
Post = Callable  # async: a request's body → the model server's Answer
Row = tuple[bytes, bytes]  # the instance as JSON; what names it in the output, `"instance":…`


def find(cloud: Cloud, job: dict) -> list[list]:
    """[path, size, time] of every input file, in the order of the addresses, then of the names.

    Raises:
        ApiError: an address means no file.
    """
    files = []
    for uri in job["inputConfig"]["gcsSource"]["uris"]:
        bucket, _, name = uri.removeprefix("gs://").partition("/")
        top = buckets.path_of(cloud, f"gs://{bucket}")
        below = re.match(r"[^*?\[]*", name)[0].rpartition("/")[0]
        parts = re.split(r"(\*\*|\*|\?|\[[\w-]+\])", name)  # every second one is a wildcard
        parts = [MARKS.get(p, p) if i % 2 else re.escape(p) for i, p in enumerate(parts)]
        wanted = re.compile("".join(parts))
        paths = buckets.path_of(cloud, f"gs://{bucket}/{below}").rglob("*")
        chosen = [p for p in paths if wanted.fullmatch(p.relative_to(top).as_posix())]
        found = [path for path in sorted(chosen) if path.is_file()]
        if not found:
            raise ApiError(404, f"There are no files at {uri}.")
        files += map(_print, found)
    return files


def unchanged(files: list[list]) -> bool:
    """Whether input files are what they were when they were found."""
    try:
        return all(_print(Path(file[0])) == file for file in files)
    except OSError:
        return False


def _print(path: Path) -> list:
    stat = path.stat()
    return [str(path), stat.st_size, stat.st_mtime_ns]


def count(files: list[list], job: dict) -> int:
    """Rows in all the files."""
    total = 0
    for path, *_ in files:
        with open(path, "rb") as file:
            total += max(0, sum(not line.isspace() for line in file) - _is_csv(job))
    return total


async def score(job: dict, folder: Path, post: Post, note: Callable) -> None:
    """Score the rows that `job` has not noted yet, at most IN_FLIGHT batches at once.

    Args:
        folder: where the two output files are written.
        note: keeps fields of the job; what it raises ends the work.
    """
    size = job.get("manualBatchTuningParameters", {}).get("batchSize") or BATCH_SIZE
    end = b"]}"
    if "modelParameters" in job:
        end = b'],"parameters":%b}' % orjson.dumps(job["modelParameters"])
    read, output, waiting = _reader(job), _Output(job, folder, note), deque()
    batches = _batches(job, output.place, size)
    try:
        while not output.hopeless:
            batch = next(batches, None)
            if batch:
                place, lines = batch
                waiting.append((place, asyncio.ensure_future(_batch(lines, read, post, end))))
                await asyncio.sleep(0)  # it is sent
            if waiting and (not batch or len(waiting) == IN_FLIGHT):
                place, task = waiting.popleft()
                output.add(place, await task)
            elif not batch:
                break
        output.note()
    finally:
        for _, task in waiting:
            task.cancel()
        await asyncio.gather(*(task for _, task in waiting), return_exceptions=True)
        output.close()


class _Output:
    """The two files of a job, and how far it is; what was written after the last note is lost."""

    def __init__(self, job: dict, folder: Path, note: Callable):
        number, offset, *sizes = job.get("_at", [0, 0, 0, 0])
        stats = job.get("completionStats", {})
        self.counts = [int(stats.get(key, 0)) for key in ("successfulCount", "failedCount")]
        self.place, self.total = (number, offset), job["_total"]
        self.keep, self.noted_s = note, time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self.files = [(folder / name).open("ab") for name in NAMES]
        for file, size in zip(self.files, sizes, strict=True):
            file.truncate(size)
            file.seek(size)

    @property
    def hopeless(self) -> bool:
        return not self.counts[0] and self.counts[1] >= HOPELESS

    def add(self, place: tuple[int, int], lines: tuple[list[bytes], list[bytes]]) -> None:
        self.place = place
        for i, part in enumerate(lines):
            self.counts[i] += len(part)
            self.files[i].write(b"".join(part))
        if time.monotonic() > self.noted_s + NOTED_S:
            self.note()

    def note(self) -> None:
        for file in self.files:
            file.flush()
        ok, bad = self.counts
        left = max(0, self.total - ok - bad)
        stats = {"successfulCount": ok, "failedCount": bad, "incompleteCount": left}
        at = [*self.place, *(file.tell() for file in self.files)]
        self.keep(_at=at, completionStats={key: str(value) for key, value in stats.items()})
        self.noted_s = time.monotonic()

    def close(self) -> None:
        for file in self.files:
            file.close()


async def _batch(lines: list[bytes], read: Callable, post: Post, end: bytes) -> tuple[list, list]:
    """The lines for both files."""
    rows, results, errors = [], [], []
    for line in filter(bytes.strip, lines):
        try:
            rows.append(read(line))
        except (ValueError, KeyError, csv.Error) as error:
            shown = b'"instance":' + orjson.dumps(line.strip().decode(errors="replace"))
            errors.append(_failed(shown, f"The line can't be read: {error!r}"))
    answers = await _answers(rows, post, end) if rows else []
    for (_, shown), answer in zip(rows, answers, strict=True):
        if isinstance(answer, str):
            errors.append(_failed(shown, answer))
        else:
            results.append(b'{%b,"prediction":%b}\n' % (shown, answer))
    return results, errors


async def _answers(rows: list[Row], post: Post, end: bytes) -> list[bytes | str]:
    """A prediction, or what went wrong, for each row: a refused batch is halved until the row at
    fault stands alone."""
    answer = await post(b'{"instances":[' + b",".join([sent for sent, _ in rows]) + end)
    predictions, said = [], answer.body.decode(errors="replace")
    if answer.status == 200:
        try:
            predictions = [orjson.dumps(p) for p in orjson.loads(answer.body)["predictions"]]
        except ValueError:  # NaN, Infinity
            predictions = [json.dumps(p).encode() for p in json.loads(said)["predictions"]]
    if len(predictions) == len(rows):
        return predictions
    if len(rows) == 1:
        return [f"The model server answered {answer.status}: {said[:1000]}"]
    half = len(rows) // 2
    return await _answers(rows[:half], post, end) + await _answers(rows[half:], post, end)


def _failed(shown: bytes, message: str) -> bytes:
    """[P] GcsDestination of the output: the instance, then code and message."""
    return b'{%b,"error":%b}\n' % (shown, orjson.dumps({"code": 3, "message": message}))


def _batches(job: dict, place: tuple[int, int], size: int) -> Iterator[tuple]:
    """From a place on: the (file, offset) where a batch ends, and its lines."""
    first, offset = place
    for number in range(first, len(job["_files"])):
        with open(job["_files"][number][0], "rb") as file:
            file.seek(offset)
            if _is_csv(job) and not offset:
                file.readline(LINE_BYTES)  # the header
            lines = iter(functools.partial(file.readline, LINE_BYTES), b"")
            while batch := list(itertools.islice(lines, size)):
                if any(len(line) == LINE_BYTES for line in batch):
                    raise ApiError(400, f"A line has {LINE_BYTES} bytes or more.")
                yield (number, file.tell()), batch
        offset = 0


def _is_csv(job: dict) -> bool:
    return job["inputConfig"]["instancesFormat"] == "csv"


def _reader(job: dict) -> Callable[[bytes], Row]:
    """What makes a row of a line; it raises ValueError, KeyError or csv.Error."""
    about = job.get("instanceConfig", {})
    if _is_csv(job):
        return _csv_row
    if not about:
        return _json_row
    key, kind = about.get("keyField"), about.get("instanceType")
    wanted, unwanted = about.get("includedFields"), {key, *about.get("excludedFields", [])}

    def row(line: bytes) -> Row:
        found = orjson.loads(line)
        if not isinstance(found, dict):
            raise ValueError("not an object")
        shown = b'"key":' + orjson.dumps(found[key]) if key else b'"instance":' + line.strip()
        sent = {n: found[n] for n in wanted or [name for name in found if name not in unwanted]}
        return orjson.dumps([*sent.values()] if kind == "array" else sent), shown

    return row


def _json_row(line: bytes) -> Row:
    orjson.loads(line)
    line = line.strip()
    return line, b'"instance":' + line


def _csv_row(line: bytes) -> Row:
    """Quoted is text, the rest numbers [D: predictions/get-batch-predictions]."""
    cells = csv.reader([line.decode()], quoting=csv.QUOTE_NONNUMERIC, strict=True)
    row = orjson.dumps(next(cells))
    return row, b'"instance":' + row
