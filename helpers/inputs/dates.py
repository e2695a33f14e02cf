"""Columns of dates: read whatever their form, used by their parts."""

import re

import numpy as np
import pandas as pd

from helpers.inputs.columns import SAMPLE, Column, Remarks, Texts, values

DATE = re.compile(
    r"\d{4}[-/.]\d{1,2}[-/.]\d{1,2}.*|\d{1,2}[-/. ](\d{1,2}|[A-Za-z]{3,9})[-/. ]\d{2,4}.*"
)
ZONE = re.compile(  # at the end of a time of day
    r"(:\d\d(?:[.,]\d+)?(?: ?[APap][Mm])?) ?(?:(?!AM|PM)[A-Z]{1,5}|([+-])(\d\d):?(\d\d)?)$"
)
MONTHS = {r"\d{4}-\d{1,2}": "%Y-%m", r"\d{1,2}-\d{4}": "%m-%Y", r"[a-z]{3}-\d{4}": "%b-%Y",
          r"[a-z]{4,9}-\d{4}": "%B-%Y"}  # fmt: skip
STEPS = {"second": 1, "minute": 60, "hour": 3600, "day": 86_400, "week": 604_800,
         "month": 2_629_746, "quarter": 7_889_238, "year": 31_556_952}  # fmt: skip


def read_dates(levels: np.ndarray, counts: np.ndarray, rows: int) -> pd.DatetimeIndex | None:
    """Levels as dates, NaT for those that are none; None when few are dates.

    A zone is left out: a date and an hour are those that are written.
    """
    if len(levels) > 10 * SAMPLE:
        some = levels[:: len(levels) // SAMPLE]
        if sum(bool(DATE.fullmatch(level)) for level in some) < len(some) / 2:
            return None
    alike = np.array([bool(DATE.fullmatch(level)) for level in levels])
    if counts[alike].sum() <= 0.9 * rows:
        return None
    if _zoned(levels):
        levels = np.array([ZONE.sub(r"\1", level) for level in levels], object)
    starts = [int(match[1]) for level in levels if (match := re.match(r"(\d{1,2})\D", level))]
    dotted = any(re.match(r"\d{1,2}\.", level) for level in levels)
    how = {"dayfirst": dotted or max(starts, default=0) > 12, "errors": "coerce", "utc": True}
    form = pd.tseries.api.guess_datetime_format(levels[0], dayfirst=how["dayfirst"])
    dates = pd.to_datetime(levels, format=form or "mixed", **how)
    if form and dates.isna().any():  # other forms among them
        dates = pd.to_datetime(levels, format="mixed", **how)
    return dates.tz_localize(None) if counts[dates.notna()].sum() > 0.9 * rows else None


def ahead_of_utc(levels: np.ndarray) -> pd.TimedeltaIndex | None:
    """How far the clock of each level is ahead of UTC, 0 where that is not written; None where no
    level has a zone."""
    if not _zoned(levels):
        return None
    signs = [match and match.groups() for match in map(ZONE.search, levels)]
    minutes = [
        int(f"{sign[1]}1") * (60 * int(sign[2]) + int(sign[3] or 0)) if sign and sign[1] else 0
        for sign in signs
    ]
    return pd.to_timedelta(minutes, "min")


def _zoned(levels: np.ndarray) -> bool:
    return any(ZONE.search(level) for level in levels[:: -(-len(levels) // SAMPLE)])


def read_months(levels: np.ndarray) -> pd.DatetimeIndex | None:
    """Levels that are months or quarters, such as 2024-03, Mar 2024 or 2024Q1, as their first days;
    None where one is none."""
    plain = [re.sub(r"[-/. ]+", "-", level.strip()) for level in levels]
    for pattern, form in MONTHS.items():
        if all(re.fullmatch(pattern, level, re.IGNORECASE) for level in plain):
            dates = pd.to_datetime(plain, format=form, errors="coerce")
            return None if dates.isna().any() else dates
    if all(re.fullmatch(r"\d{4}-?Q[1-4]", level, re.IGNORECASE) for level in plain):
        quarters = [level.replace("-", "").upper() for level in plain]
        return pd.PeriodIndex(quarters, freq="Q").to_timestamp()
    return None


def date_parts(
    name: str, column: Texts, dates: pd.DatetimeIndex, remarks: Remarks, every: bool
) -> dict[str, Column]:
    """A column of dates as columns of numbers; `every`: also those that are alike in all rows."""
    parts = {part: getattr(dates, part) for part in ("year", "month", "dayofweek", "hour")}
    words = {"dayofweek": "day_of_week"}
    kept = {
        f"{name}_{words.get(part, part)}": values(column, np.asarray(found, "float64"))
        for part, found in parts.items()
        if every or found.nunique() > 1
    }
    used = ", ".join(kept) or "nothing, all are alike"
    remarks.notes.append(f"{name} holds dates: used as {used}")
    if step := _step(column, dates):
        remarks.steps[name] = step
    return kept


def _step(column: Texts, dates: pd.DatetimeIndex) -> str:
    """How far apart rows are that dates order, one row a date: "an hour"; "" of others."""
    if len(column.levels) != len(column) or len(column) < 3 or dates.isna().any():
        return ""  # levels are as many as rows: all differ, none is missing
    apart = np.diff(dates.as_unit("ns").asi8[column.places] / 1e9)
    apart = apart if apart[0] > 0 else -apart
    middle = float(np.median(apart))
    if np.mean(apart <= 0) > 0.001 or (  # an hour comes twice when summer time ends
        (np.abs(apart / middle - 1) < 0.1).mean() < 0.7
    ):
        return ""
    name = max((unit for unit in STEPS if STEPS[unit] <= 1.1 * middle), key=STEPS.get, default="")
    count = round(middle / STEPS[name]) if name else 0
    return f"every {count} {name}s" if count > 1 else f"every {name}" if name else "every moment"
