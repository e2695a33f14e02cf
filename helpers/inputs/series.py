"""A series in time: read, put on its own grid of steps, split by time, cut into windows.

`DATA` is `weekly_sales` (see there), or a file with a column of times and one of numbers.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud.client import Session
from helpers.errors import DataError, SettingError, near
from helpers.inputs import columns, files, formats, held_back
from helpers.inputs import examples as held_out

BUILT_IN = ("weekly_sales",)
WEEKS, NOISE = 520, 700
SECONDS = {"week": 604_800, "day": 86_400, "hour": 3600, "minute": 60, "second": 1}
SEASONS = {"quarter": 4, "month": 12, "week": 52, "working day": 5, "day": 7, "hour": 24}
PERIODS = {"year": "Y", "quarter": "Q", "month": "M"}  # steps of unlike length
SHOWN = 4


@dataclass(frozen=True)
class Windows:
    """`x` (n, WINDOW) and what came next, `y` (n, HORIZON), float32; `at`, the place of the first
    of these in the series."""

    x: np.ndarray
    y: np.ndarray
    at: np.ndarray

    def __len__(self) -> int:
        return len(self.at)


@dataclass(frozen=True)
class Series:
    """A series and its windows; what a plot of a table needs is named alike.

    `values`: one number a step, NaN in gaps, by time. `step`: "week" or "5 minutes"; `season`:
    steps until it may repeat, 0 where none is known. `held`: where the test part starts and ends.
    """

    name: str
    values: pd.Series
    step: str
    season: int
    held: tuple[int, int]
    window: int
    horizon: int
    train: Windows
    test: Windows
    target: str
    unit: str
    notes: tuple[str, ...]
    built_in: bool
    noise_mae: float | None
    task: str = "regression"
    classes: tuple[str, ...] = ()
    called: str = "windows"


def load(
    source: str = "weekly_sales",
    *,
    time: str = "",
    target: str = "",
    window: int = 60,
    horizon: int = 8,
    season: int = 0,
    session: Session | None = None,
) -> Series:
    """Read a series, find its step and gaps, and hold back its last quarter.

    A window with a gap in it is left out. What is learned lies before what is tested; a test
    window may look back into the part that was learned, as a forecast does.

    Args:
        source: "weekly_sales", or the path, URL or gs:// address of a file as `data.load` takes it.
        time, target: the columns of times and of numbers; "" takes the first of dates, and the
            last of numbers.
        window: how many steps the model sees.
        horizon: how many steps it forecasts.
        season: steps until the series may repeat; 0 takes the usual of its step (52 weeks).
        session: who reads a gs:// address; default: the cloud this process runs in.
    Raises:
        DataError: the times are no series, or it is too short; the message says what was found.
        SettingError: a length is under 1.  NotFoundError: there is no such file.
    """
    if min(window, horizon) < 1 or season < 0:
        raise SettingError(f"WINDOW={window}, HORIZON={horizon}, SEASON={season}; expected 1 step.")
    notes: list[str] = []
    if source in BUILT_IN:
        made = weekly_sales()
        values, unit, target = made["sales"], "$", "sales"
    else:
        values, unit = _read(source, time, target, session, notes)
        target = str(values.name)
    values, step, usual = _on_grid(values, source, notes)
    start, end = held_back.by_time(len(values), horizon, notes)
    content = values.to_numpy("float32")
    train = _windows(content[:start], window, horizon, window)
    test = _windows(content[:end], window, horizon, max(start, window))
    if not len(train) or not len(test):
        raise DataError(
            f"{source} has {len(values):,} steps; WINDOW={window} and HORIZON={horizon} leave "
            f"{len(train)} whole windows to learn from and {len(test)} to test. Shorten them, or "
            "fill the gaps."
        )
    for note in notes:
        print(note)
    noise = made["noise"].to_numpy() if source in BUILT_IN else None
    limit = None if noise is None else _windows(noise, window, horizon, max(start, window)).y
    name = source if source in BUILT_IN else Path(source).name.partition(".")[0]
    return Series(
        name=name, values=values, step=step, season=season or usual, held=(start, end),
        window=window, horizon=horizon, train=train, test=test, target=target, unit=unit,
        notes=tuple(notes), built_in=source in BUILT_IN,
        noise_mae=None if limit is None else float(np.abs(limit[: len(test)]).mean()),
    )  # fmt: skip


def describe(series: Series) -> pd.DataFrame:
    """What a series is like, a line each; no single value of it."""
    first, last = (f"{time:%Y-%m-%d %H:%M}".removesuffix(" 00:00") for time in _ends(series.values))
    seen = series.values.dropna()
    lines = {
        "from": first, "to": last, "step": f"one {series.step}", "steps": f"{len(series.values):,}",
        "missing": f"{int(series.values.isna().sum()):,}", "season": f"{series.season} steps",
        f"{series.target} ({series.unit})" if series.unit else series.target:
            f"{seen.min():,.6g} to {seen.max():,.6g}, mean {seen.mean():,.6g}",
        "windows to learn from": f"{len(series.train):,}", "to test": f"{len(series.test):,}",
    }  # fmt: skip
    return pd.DataFrame({"": lines})


def naive(series: Series, windows: Windows) -> dict[str, np.ndarray]:
    """Forecasts without a model: the last value, and what was there a season before. (n, HORIZON)

    Where the season before has a gap or lies before the start, the last value stands.
    """
    content = series.values.to_numpy("float32")
    ahead = np.arange(series.horizon)
    last = np.repeat(windows.x[:, -1:], series.horizon, axis=1)
    found = {"last_value": last}
    if series.season > 1:
        back = series.season * (1 + ahead // series.season)  # never from the forecast part
        places = windows.at[:, None] + ahead - back
        before = np.where(places >= 0, content[np.maximum(places, 0)], np.nan)
        found["seasonal"] = np.where(np.isnan(before), last, before)
    return found


def examples(series: Series, most: int = 1000) -> tuple[np.ndarray, np.ndarray] | None:
    """Held-out windows and what came next, to travel with the model; 0 gives None."""
    if not most:
        return None
    chosen = held_out.choose(len(series.test), most)
    return series.test.x[chosen], series.test.y[chosen]


def weekly_sales() -> pd.DataFrame:
    """520 weeks by a known rule, in whole dollars, with Python's own generator.

    A level that grows by $25 a week, times a year's season of two waves (a summer's dip, a peak
    before Christmas). The noise is the sum of four even draws from -700 to 700 (sd 808, mean
    absolute error about 640): what no forecast can know.
    """
    draw, rows = random.Random(2022), []
    for week in range(WEEKS):
        turn = 2 * math.pi * week / 52.1775
        season = 1 + 0.22 * math.cos(turn) + 0.10 * math.cos(2 * turn + 0.6)
        noise = sum(int(draw.random() * (2 * NOISE + 1)) - NOISE for _ in range(4))
        rows.append({"sales": round((18_000 + 25 * week) * season) + noise, "noise": noise})
    weeks = pd.date_range("2014-01-06", periods=WEEKS, freq="7D", name="week")
    return pd.DataFrame(rows, index=weeks).astype("float64")


def _read(
    source: str, time: str, target: str, session: Session | None, notes: list[str]
) -> tuple[pd.Series, str]:
    """The numbers by their times, as they stand in the file, and their unit."""
    found = files.find(source, session)
    with files.on_disk(next(iter(found)), session) as path:
        raw, comma = formats.parse(path, source, notes)
    if time and time not in raw:
        raise DataError(f'TIME="{time}" is not a column.{near(time, raw)}')
    times = {name: _times(raw[name]) for name in ([time] if time else raw)}
    time = next((name for name, found in times.items() if found is not None), "")
    if not time:
        raise DataError(
            f"{source} has no times in {', '.join(map(repr, times))}; expected a column of dates, "
            "such as 2024-03-01 or 2024-03-01 13:00."
        )
    remarks = columns.Remarks(notes)
    others = {name: column for name, column in raw.items() if name != time}
    target = columns.find(target, others) if target else ""
    wanted = {target: others[target]} if target else others
    numbers = {
        name: column
        for name, column in columns.typed(wanted, remarks, comma=comma).items()
        if isinstance(column, np.ndarray) and name in wanted
    }
    if not numbers:
        raise DataError(
            f"{source} has no numbers in {', '.join(map(repr, wanted))}; expected some."
        )
    name = next(reversed(numbers))
    notes.append(f'times are in "{time}", numbers in "{name}"')
    made = pd.Series(numbers[name], index=times[time], name=name)
    lost = int(made.index.isna().sum())
    if lost:
        notes.append(f"{lost:,} rows without a time are left out")
    return made[made.index.notna()], remarks.units.get(name, "")


def _times(column: columns.Column) -> pd.DatetimeIndex | None:
    """A column as times, if it holds some; years are times, too."""
    if isinstance(column, np.ndarray):
        seen = column[~np.isnan(column)]
        if not len(seen) or not ((seen % 1 == 0) & (seen > 1500) & (seen < 2200)).all():
            return None
        return pd.DatetimeIndex([pd.Timestamp(int(y), 1, 1) if y == y else pd.NaT for y in column])
    rows = int((column.places >= 0).sum())
    if not rows:
        return None
    found = columns.read_dates(column.levels, columns.counted(column), rows)
    if found is None:
        return None
    return found.tz_localize(None).append(pd.DatetimeIndex([pd.NaT]))[column.places]


def _on_grid(values: pd.Series, source: str, notes: list[str]) -> tuple[pd.Series, str, int]:
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
    times = values.index.as_unit("ns")
    places, grid, step, season = _by_calendar(times) or _even(times, source)
    whole = np.full(len(grid), np.nan)
    whole[places] = values
    made = pd.Series(whole, grid, name=values.name)
    _name_gaps(made, step, notes)
    return made, step, season


def _by_calendar(times: pd.DatetimeIndex) -> tuple | None:
    """Years, quarters, months or working days: (place of each time, all steps, name, season)."""
    for step, freq in PERIODS.items():
        periods = times.to_period(freq)
        apart = np.diff(periods.asi8)
        count = max(1, int(np.median(apart)))
        if apart.min() > 0 and not (apart % count).any():
            season = SEASONS.get(step, 0)
            grid = pd.period_range(periods[0], periods[-1], freq=freq).to_timestamp()[::count]
            places = (periods.asi8 - periods.asi8[0]) // count
            name = step if count == 1 else f"step of {count} {step}s"
            return places, grid, name, season // count if season % count == 0 else 0
    step_s = float(np.median(np.diff(times.asi8))) / 1e9
    if step_s == SECONDS["day"] and times.dayofweek.max() < 5:
        grid = pd.bdate_range(times[0], times[-1])
        places = grid.get_indexer(times)
        if places.min() >= 0:
            return places, grid, "working day", SEASONS["working day"]
    return None


def _even(times: pd.DatetimeIndex, source: str) -> tuple:
    """Steps of one length; a time may be a tenth of it off."""
    step_s = float(np.median(np.diff(times.asi8))) / 1e9
    exact = (times.asi8 - times.asi8[0]) / 1e9 / step_s
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
    grid = times[0] + pd.to_timedelta(np.arange(places[-1] + 1) * step_s, "s")
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


def _windows(content: np.ndarray, window: int, horizon: int, start: int) -> Windows:
    """Every window without a gap whose forecast starts at `start` or later, and ends inside."""
    size = window + horizon
    if len(content) < size:
        return Windows(*np.zeros((2, 0, 1), "float32"), np.zeros(0, int))
    cut = np.lib.stride_tricks.sliding_window_view(content, size)
    at = np.arange(len(cut)) + window
    kept = (at >= start) & ~np.isnan(cut).any(axis=1)
    cut = cut[kept].astype("float32")
    return Windows(cut[:, :window].copy(), cut[:, window:].copy(), at[kept])


def _ends(values: pd.Series) -> tuple:
    return values.index[0], values.index[-1]
