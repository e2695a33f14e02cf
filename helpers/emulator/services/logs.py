"""Cloud Logging over files: DIR/logs/PROJECT/TYPE/ID/TASK.jsonl, one `{"t","m","s"}` a line."""

import bisect
import contextlib
import datetime
import itertools
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

import orjson

from helpers.emulator.front.calls import ApiError, Call, Cloud, method, now, part_of, project_number
from helpers.emulator.front.filters import compile_filter

# As LogEntry.severity has them, the least first [P].
SEVERITIES = ("DEFAULT", "DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT",
              "EMERGENCY")  # fmt: skip
ID_LABEL = {"ml_job": "job_id", "build": "build_id"}  # every other type: "endpoint_id"


def folder(cloud: Cloud, kind: str, name: str) -> Path:
    """Where the logs of a resource `projects/…` lie."""
    _, project, *_, resource_id = name.split("/")
    return cloud.folder / "logs" / project_number(project) / quote(kind, safe="") / resource_id


def write(cloud: Cloud, kind: str, name: str, lines: Iterable[str], *, task: str = "service",
          severity: str = "INFO") -> None:  # fmt: skip
    """Append lines to a resource's log."""
    path = folder(cloud, kind, name) / f"{task}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a") as file:
        for line in lines:
            file.write(json.dumps({"t": now(), "m": line, "s": severity}) + "\n")


@method("logging.entries.list")
def entries(call: Call) -> dict:
    """Entries of the named projects, oldest first unless orderBy says otherwise."""
    text = call.body.get("filter", "")
    try:
        ranks = {"severity": SEVERITIES}
        wanted = compile_filter(text, ranks=ranks) if text.strip() else lambda entry: True
    except ValueError as error:
        raise ApiError(400, f"Unparseable filter: {error}") from error
    order = call.body.get("orderBy") or "timestamp asc"
    if order not in ("timestamp asc", "timestamp desc"):
        raise ApiError(400, f"orderBy={order!r}; expected timestamp asc or timestamp desc.")
    names = call.body.get("resourceNames", [])
    if not names or not all(re.fullmatch(r"projects/[^/]+", name) for name in names):
        raise ApiError(400, f"resourceNames={names}; expected projects/PROJECT, one or more.")
    projects = dict.fromkeys(name.split("/")[1] for name in names)
    size = int(call.body.get("pageSize") or 50)
    if size < 0:
        raise ApiError(400, f"page_size must not be negative; found {size}.")
    plain = _plain(text)
    narrowed = re.search(r'resource\.labels\.(?:job|build|endpoint)_id\s*=\s*"?([\w-]+)"?', plain)
    within = _within(plain)
    found = (_entries(call.cloud, each, narrowed and narrowed[1], within) for each in projects)
    chosen = [entry for entry in itertools.chain(*found) if wanted(entry)]
    chosen.sort(key=lambda entry: entry["timestamp"], reverse=order.endswith("desc"))
    shown, token = part_of(call, chosen, min(size, 1000))
    answer: dict = {"entries": shown} if shown else {}
    return answer | ({"nextPageToken": token} if token else {})


def _plain(text: str) -> str:
    """A filter all of whose parts must hold, without the texts it looks for; else nothing."""
    text = re.sub(r'[:~]\s*"(?:[^"\\]|\\.)*"', ':""', text)
    return "" if re.search(r"\b(OR|NOT)\b|(^|[\s(])-", text) else text


def _within(plain: str) -> tuple[bytes, bytes]:
    """The times between which a filter's entries lie, where it says so plainly."""
    bounds = {">": [], "<": []}
    for sign, moment in re.findall(r'timestamp\s*([<>])=?\s*"([^"]+)"', plain):
        with contextlib.suppress(ValueError):
            at = datetime.datetime.fromisoformat(moment).astimezone(datetime.UTC)
            bounds[sign].append(at.strftime("%Y-%m-%dT%H:%M:%S.%fZ").encode())
    return max(bounds[">"], default=b""), min(bounds["<"], default=b"~")


def _time(line: bytes) -> bytes:
    return line[7:34]  # {"t": "2026-11-28T00:00:00.000000Z", …


def _entries(
    cloud: Cloud, project: str, resource_id: str | None, within: tuple[bytes, bytes]
) -> Iterator[dict]:
    logs = cloud.folder / "logs" / project_number(project)
    for path in sorted(logs.glob(f"*/{resource_id or '*'}/*.jsonl")):
        kind, found = path.parts[-3].replace("%2F", "/"), path.parts[-2]
        labels = {ID_LABEL.get(kind, "endpoint_id"): found, "project_id": project}
        resource = {"type": kind, "labels": labels | {"task_name": path.stem}}
        lines = path.read_bytes().splitlines(keepends=True)  # in the order of their times
        first = bisect.bisect_left(lines, within[0], key=_time)
        end = bisect.bisect_right(lines, within[1], key=_time)
        for i, raw in enumerate(lines[first:end], first):
            if not raw.endswith(b"\n"):
                continue  # a line that is being written
            line = orjson.loads(raw)
            yield {
                "insertId": f"{found}-{path.stem}-{i}",
                "logName": f"projects/{project}/logs/{quote(path.stem, safe='')}",
                "resource": resource,
                "timestamp": line["t"],
                "severity": line["s"],
                "textPayload": line["m"],
            }
