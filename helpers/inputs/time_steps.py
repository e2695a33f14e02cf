"""The times of a series: found in a column, put on a grid of even steps, its gaps named."""

import numpy as np
import pandas as pd

from helpers.errors import DataError
from helpers.inputs import columns, dates

SECONDS = {"week": 604_800, "day": 86_400, "hour": 3600, "minute": 60, "second": 1}
SEASONS = {"quarter": 4, "month": 12, "week": 52, "working day": 5, "day": 7, "hour": 24}
PERIODS = {"year": ("Y", 12), "quarter": ("Q", 3), "month": ("M", 1)}  # of unlike length
SHOWN = 4
FIRST_S = 1e8  # in 1973; whole numbers from there on can be seconds since 1970


def times(column: columns.Column, *, asked: bool) -> pd.DatetimeIndex | None:
    """A column as times, if it holds some; years and months are times, too.

    Times with a zone are taken as they are written; where summer time would make an hour come
    twice or never, the zone of the earliest one is kept throughout.

    Args:
        asked: it is said to be one of times, so numbers may be seconds since 1970.
    """
    column = columns.as_numbers(column)
    if isinstance(column, np.ndarray):
        seen = column[~np.isnan(column)]
        if asked and len(seen) and seen.min() >= FIRST_S:
            factor = 1000 if seen.min() >= 1000 * FIRST_S else 1
            return pd.to_datetime(column / factor, unit="s")
        if not len(seen) or not ((seen % 1 == 0) & (seen > 1500) & (seen < 2200)).all():
            return None
        years = (np.where(np.isnan(column), 0, column) - 1970).astype("datetime64[Y]")
        years[np.isnan(column)] = np.datetime64("NaT")
        return pd.DatetimeIndex(years.astype("datetime64[us]"))
    column = columns.without_gaps(column)
    rows = int((column.places >= 0).sum())
    if not rows:
        return None
    ahead = None
    found = dates.read_months(column.levels)
    if found is None:
        ahead = dates.ahead_of_utc(column.levels)
        found = dates.read_dates(column.levels, columns.counted(column), rows)
    if found is None:
        return None
    if ahead is not None:
        utc = found - ahead
        found = max(found, utc + ahead[utc.argmin()], key=_evenness)
    return found.append(pd.DatetimeIndex([pd.NaT]))[column.places]


def _evenness(times: pd.DatetimeIndex) -> int:
    """How many steps between these times are as long as the most common."""
    apart = np.diff(times.dropna().sort_values().asi8)
    return np.unique(apart, return_counts=True)[1].max(initial=0)


def on_grid(values: pd.Series, source: str, notes: list[str]) -> tuple[pd.Series, str, int]:
    """One value a step, NaN where there is none; the step's name and its usual season."""
    values = values.sort_index()
    twice = values.index[values.index.duplicated()]
    if len(twice):
        raise DataError(
            f"{source} has {int((values.index == twice[0]).sum())} rows for {twice[0]}; expected "
            "one a time. Keep one series of them, or sum them first."
        )
    if len(values) < 3:
        raise DataError(f"{source} has {len(values)} times; expected a series of many.")
    times = values.index.as_unit("us")  # of nanoseconds only those since 1677 are known
    places, grid, step, season = _by_calendar(times) or _even(times, source)
    whole = np.full(len(grid), np.nan)
    whole[places] = values
    made = pd.Series(whole, grid, name=values.name)
    _name_gaps(made, step, notes)
    return made, step, season


def _by_calendar(times: pd.DatetimeIndex) -> tuple | None:
    """Years, quarters, months or working days: (place of each time, all steps, name, season)."""
    for step, (freq, months) in PERIODS.items():
        periods = times.to_period(freq)
        apart = np.diff(periods.asi8)
        count = max(1, int(np.median(apart)))
        if apart.min() > 0 and not (apart % count).any():
            season = SEASONS.get(step, 0)
            steps = np.arange(periods.asi8[0], periods.asi8[-1] + 1, count)
            grid = pd.DatetimeIndex((steps * months).astype("datetime64[M]").astype(times.dtype))
            places = (periods.asi8 - periods.asi8[0]) // count
            name = step if count == 1 else f"step of {count} {step}s"
            return places, grid, name, season // count if season % count == 0 else 0
    step_s = float(np.median(np.diff(times.asi8))) / 1e6
    if step_s == SECONDS["day"] and times.dayofweek.max() < 5:
        grid = pd.bdate_range(times[0], times[-1])
        places = grid.get_indexer(times)
        if places.min() >= 0:
            return places, grid, "working day", SEASONS["working day"]
    return None


def _even(times: pd.DatetimeIndex, source: str) -> tuple:
    """Steps of one length; a time may be a tenth of it off."""
    step_s = float(np.median(np.diff(times.asi8))) / 1e6
    exact = (times.asi8 - times.asi8[0]) / 1e6 / step_s
    places = exact.round().astype(int)
    off = np.abs(exact - places)
    if off.max() > 0.1 or len(set(places)) < len(places):
        bad = int(off.argmax()) or 1
        raise DataError(
            f"The times of {source} are not evenly spaced: mostly {pd.Timedelta(step_s, 's')} "
            f"apart, but {times[bad]} follows {times[bad - 1]}. Bring them to one step first."
        )
    name = next((unit for unit, size in SECONDS.items() if step_s % size == 0), "")
    count = int(step_s // SECONDS[name]) if name else 1
    season = SEASONS.get(name, 0) if count == 1 else 0
    if not season and SECONDS["day"] % step_s == 0 and step_s < SECONDS["day"]:
        season = int(SECONDS["day"] // step_s)
    after_us = (np.arange(places[-1] + 1) * step_s * 1e6).round().astype("timedelta64[us]")
    grid = pd.DatetimeIndex(times[0].to_datetime64() + after_us)
    if not name:
        count, name = f"{step_s:g}", "second"
    return places, grid, name if count == 1 else f"step of {count} {name}s", season


def _name_gaps(values: pd.Series, step: str, notes: list[str]) -> None:
    empty = values.isna().to_numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], empty.view("int8"), [0]])))
    gaps = [(values.index[a], b - a) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    if gaps:
        named = ", ".join(f"{at:%Y-%m-%d} ({size})" for at, size in gaps[:SHOWN])
        more = f" and {len(gaps) - SHOWN} more" if len(gaps) > SHOWN else ""
        notes.append(
            f"gaps: {named}{more}, {int(empty.sum()):,} × one {step} without a value; windows with "
            "one are left out"
        )
