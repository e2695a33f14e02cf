"""What a view is given and gives back, and the words in which pages say times, sizes, amounts."""

import datetime
import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import jinja2
from starlette.datastructures import QueryParams

from helpers.cloud.client import Session as _Session
from helpers.looks.amounts import amount


class Session(_Session):
    """Gives up early: a page that says what is wrong is better than one that does not come."""

    tries: ClassVar[int] = 2


@dataclass(frozen=True)
class Visit:
    """One request: which project, which thing, what was asked or sent."""

    session: Session
    path: dict[str, str]
    query: QueryParams
    form: dict[str, str] | None = None  # of a POST
    state: Path | None = None  # the local cloud's folder, for what is copied into a terminal

    @property
    def given(self) -> Mapping[str, str]:
        """What the form sent, else what the address asks."""
        return self.query if self.form is None else self.form


@dataclass(frozen=True)
class Page:
    """A template and what it shows."""

    template: str
    values: dict


@dataclass(frozen=True)
class Done:
    """A change was made: where to go on (below the project), and what to say there."""

    to: str
    said: str


@dataclass(frozen=True)
class Confirm:
    """A change about to be made: a question that names the thing, what will happen, the verb."""

    question: str
    effects: list[str]
    verb: str
    back: str
    extra: dict[str, str] = field(default_factory=dict)  # sent along

    @property
    def shown(self) -> str:
        """Stands for all that the reader is told; it travels with the form."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def whole(text: str) -> int:
    """The number that an address names; 0 for anything else."""
    return int(text) if text.isdecimal() and len(text) < 20 else 0


def parse(moment: str) -> datetime.datetime:
    """RFC 3339, as the APIs write it (nanoseconds are cut)."""
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment))


def seconds(start: str, end: str = "") -> float:
    """Between two moments; until now without the second."""
    until = parse(end) if end else datetime.datetime.now(datetime.UTC)
    return (until - parse(start)).total_seconds()


def lasted(amount_s: float) -> str:
    """`0.4 s`, `42 s`, `3 min 20 s`, `2 h 5 min`, `3 days`."""
    if amount_s < 9.95:
        return f"{max(0, amount_s):.1f} s"
    whole = round(amount_s)
    if whole >= 48 * 3600:
        return f"{whole // 86400} days"
    for step, name, rest in ((3600, "h", "min"), (60, "min", "s")):
        if whole >= step:
            return f"{whole // step} {name} {whole % step * 60 // step} {rest}"
    return f"{whole} s"


def ago(moment: str) -> str:
    """`12 s ago`, `3 min ago`, `2 days ago`."""
    number, unit = lasted(int(seconds(moment))).split()[:2]
    return f"{number.removesuffix('.0')} {unit} ago"


def clock(moment: str) -> str:
    """A moment in UTC, to the second."""
    return parse(moment).astimezone(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def short(text: str, length: int = 60) -> str:
    """A name cut to a length that a page can show, its middle left out."""
    if len(text) <= length:
        return text
    return f"{text[: length * 2 // 3]}…{text[-(length // 3) :]}"


def environment() -> jinja2.Environment:
    """The templates; every value is escaped."""
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    made.filters |= {
        "lasted": lasted, "ago": ago, "clock": clock, "amount": amount,
        "short": short, "py": repr, "json": json.dumps, "sh": shlex.quote,
    }  # fmt: skip
    return made


def confirmed(visit: Visit, asked: Confirm) -> bool:
    """Whether this request says yes to just this question; what changed meanwhile is asked anew."""
    return visit.form is not None and visit.form.get("shown") == asked.shown
