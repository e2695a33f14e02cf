"""A job's log as it grows: the last lines kept, the others counted, the epochs read from it."""

import collections
import datetime
import itertools
import re
import secrets
import threading
import time

from helpers.looks.amounts import read_money
from helpers.pages.views import Session, Visit, parse, whole

KEPT = 5000  # lines a page keeps
REMEMBERED = 20_000  # lines that are known when they come again
LINE = 2000  # characters of a line that are shown
FRESH_S = 0.9  # tabs that ask within this time share one answer
LAST_READS = 2  # after a job's end: its last lines may come after its state
COUNTING_S, WINDOW = 10.0, 5000
FORGOTTEN_S = 120
TYPES = {
    "training": ("ml_job", "job_id"), "batch": ("ml_job", "job_id"), "build": ("build", "build_id"),
}  # fmt: skip
# `helpers.progress` says "Epoch 5/50: mean error on training rows $1.2 k, on test rows $1.3 k".
HEAD = re.compile(r"Epoch (\d{1,9})/(\d{1,9})(?:: (.+?) (on (?:training|test) .+))?$")
PART = re.compile(r"on (training|test) (\w+) (.+?)(?:, (?=on )|$)")
_followers: dict[tuple, "Follower"] = {}
_lock = threading.Lock()


class Follower:
    """What is known of one log under one filter; all tabs on a job share it."""

    def __init__(self, session: Session, chosen: str):
        self.session, self.chosen, self.id = session, chosen, secrets.token_hex(4)
        self.lines: collections.deque[tuple] = collections.deque(maxlen=KEPT)
        self.count = 0  # of lines seen, with those that left again
        self.older: int | None = 0  # lines before the first one seen; None: too many to count
        self.used_s = time.monotonic()
        self._read_s, self._since, self._floor, self._began = 0.0, "", "", False
        self._known: dict[str, None] = {}  # the last lines' ids, in order
        self._reads_after_end = 0
        self._reading = threading.Lock()

    @property
    def complete(self) -> bool:
        """Whether all lines are known: the job has ended, and its log was read after that."""
        return self._reads_after_end >= LAST_READS

    def refresh(self, *, ended: bool = False) -> None:
        """Read what is new, unless somebody just did.

        Args:
            ended: whether the job was over before this call.
        """
        self.used_s = time.monotonic()
        with self._reading:
            if time.monotonic() - self._read_s < FRESH_S:
                return
            if not self._began:
                self._begin()
                self._began = True
            else:
                # A second twice: machines' lines do not arrive in the order of their clocks.
                since = f' AND timestamp>="{_before(self._since)}"' if self._since else ""
                for entry in self.session.log(self.chosen + since):
                    self._take(entry)
            self._read_s = time.monotonic()
            self._reads_after_end += ended

    def after(self, cursor: str) -> list[tuple]:
        """The lines after the one a page had last, `ID:NUMBER`; of another follower: all."""
        owner, _, number = cursor.partition(":")
        last = whole(number) if owner == self.id else 0
        return [line for line in list(self.lines) if line[0] > last]

    @property
    def cursor(self) -> str:
        """Where a page is that has all lines; see `after`."""
        return f"{self.id}:{self.count}"

    @property
    def left_out(self) -> int | None:
        """How many lines came before those kept; None: more than could be counted."""
        return None if self.older is None else self.older + self.count - len(self.lines)

    def _begin(self) -> None:
        """The newest lines first; then those before them are counted, within bounds."""
        entries = self.session.log(self.chosen, "timestamp desc")
        found = list(itertools.islice(entries, KEPT + 1))
        for entry in reversed(found[:KEPT]):
            self._take(entry)
        if len(found) > KEPT:
            self.older, self._floor = None, found[KEPT - 1]["timestamp"]
            target = (self._floor, set(self._known))
            threading.Thread(target=self._count_older, args=target, daemon=True).start()

    def _count_older(self, oldest: str, known: set[str]) -> None:
        """Count upwards from the log's beginning by windows of time."""
        deadline, since, at, count = time.monotonic() + COUNTING_S, "", set(), 0
        while time.monotonic() < deadline:
            bounds = f' AND timestamp<="{oldest}"' + (f' AND timestamp>="{since}"' if since else "")
            found = list(itertools.islice(self.session.log(self.chosen + bounds), WINDOW))
            new = [e for e in found if e["insertId"] not in known and e["insertId"] not in at]
            count += len(new)
            if len(found) < WINDOW or not new:
                self.older = count
                return
            since = found[-1]["timestamp"]
            at = {e["insertId"] for e in found if e["timestamp"] == since}

    def _take(self, entry: dict) -> None:
        if entry["insertId"] in self._known or entry["timestamp"] <= self._floor:
            return
        if len(self._known) == REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[entry["insertId"]] = None
        self._since = max(self._since, entry["timestamp"])
        payload = entry.get("jsonPayload", {})
        text = entry.get("textPayload") or payload.get("message") or str(payload or "")
        self.count += 1
        task = entry.get("resource", {}).get("labels", {}).get("task_name", "")
        level = entry.get("severity", "")
        self.lines.append((self.count, entry["timestamp"][11:19], task, level, shown(text)))


def shown(text: str) -> str:
    """A line as a page can show it: no control characters, a bounded length."""
    clean = re.sub(r"\x1b\[[\d;]*[A-Za-z]", "", text)  # colours
    clean = re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", "�", clean)
    return clean if len(clean) <= LINE else f"{clean[:LINE]} … ({len(clean):,} characters)"


def follower(
    session: Session, kind: str, number: str, *, task: str = "", find: str = ""
) -> Follower:
    """The follower of a job's log, made when nobody has asked for it yet."""
    key = (session.project, session.location, kind, number, task, find)
    with _lock:
        for old in [k for k, f in _followers.items() if time.monotonic() - f.used_s > FORGOTTEN_S]:
            del _followers[old]
        if key not in _followers:
            of, label = TYPES[kind]
            chosen = f'resource.type="{of}" AND resource.labels.{label}="{_quoted(number)}"'
            if task:
                chosen += f' AND resource.labels.task_name="{_quoted(task)}"'
            if find:
                chosen += f' AND textPayload:"{_quoted(find)}"'
            _followers[key] = Follower(session, chosen)
        _followers[key].used_s = time.monotonic()
        return _followers[key]


def of_page(visit: Visit, *, ended: bool) -> Follower:
    """The follower of what the page of a job shows, read until now; see `Follower.refresh`."""
    task, find = visit.query.get("replica", ""), visit.query.get("find", "")
    kind, job_id = visit.path["kind"], visit.path["id"]
    reader = follower(visit.session, kind, job_id, task=task, find=find)
    reader.refresh(ended=ended)
    return reader


def _before(moment: str) -> str:
    return (parse(moment) - datetime.timedelta(seconds=1)).isoformat()


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')


def epochs(session: Session, kind: str, number: str) -> dict:
    """What was printed of each epoch, by Keras or by `helpers.progress`.

    Returns:
        `{"done", "of", "curves": {metric: {rows: [(epoch, value)]}}}`.
    """
    heads = [match for match in map(HEAD.match, _first(session, kind, number, "Epoch ")) if match]
    total = int(heads[-1][2]) if heads else 0
    curves: dict[str, dict[str, list]] = {}
    told = [head for head in heads if head[3]]
    for head in told:
        for part, called, value in PART.findall(head[4]):
            points = curves.setdefault(head[3], {}).setdefault(f"{part} {called}", [])
            points.append((int(head[1]), read_money(value)))
    if told:
        return {"done": int(told[-1][1]), "of": total, "curves": curves}
    first = int(heads[0][1]) if heads else 1
    losses = _first(session, kind, number, "loss: ")
    ends = [text for text in losses if re.search(r"\bloss: \S+", text)]
    for epoch, text in enumerate(ends, first):
        for name, value in re.findall(r"(\w+): (-?(?:[\d.]+(?:e[+-]?\d+)?|nan|inf))(?=\s|$)", text):
            rows = "test rows" if name.startswith("val_") else "training rows"
            points = curves.setdefault(name.removeprefix("val_"), {}).setdefault(rows, [])
            points.append((epoch, float(value)))
    curves.pop("learning_rate", None)
    return {"done": min(first - 1 + len(ends), total or len(ends)), "of": total, "curves": curves}


def _first(session: Session, kind: str, number: str, text: str) -> list[str]:
    """The lines with this text of a job's first machine."""
    reader = follower(session, kind, number, task="workerpool0-0", find=text)
    reader.refresh()
    return [line[4] for line in reader.lines]
