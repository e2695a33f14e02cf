"""A series in time: read, split by time, cut into windows.

`DATA` is `weekly_sales` (see weekly_sales.py), or a file with a column of times and one of numbers.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud.client import Session
from helpers.errors import DataError, SettingError, near
from helpers.inputs import column_types, columns, formats, held_back, time_steps
from helpers.inputs import examples as held_out
from helpers.inputs.weekly_sales import weekly_sales

BUILT_IN = ("weekly_sales",)


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
            last of numbers. Times with a zone are taken as they are written; where summer time
            would make an hour come twice or never, the earliest zone is kept throughout.
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
    values, step, usual = time_steps.on_grid(values, source, notes)
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


def _read(
    source: str, time: str, target: str, session: Session | None, notes: list[str]
) -> tuple[pd.Series, str]:
    """The numbers by their times, as they stand in the file, and their unit."""
    raw, comma = formats.read(source, session, notes)
    if time and time not in raw:
        raise DataError(f'TIME="{time}" is not a column.{near(time, raw)}')
    times = {
        name: time_steps.times(raw[name], asked=bool(time)) for name in ([time] if time else raw)
    }
    time = next((name for name, found in times.items() if found is not None), "")
    if not time:
        raise DataError(
            f"{source} has no times in {', '.join(map(repr, times))}; expected a column of dates, "
            "such as 2024-03-01, 2024-03-01 13:00 or 2024-03."
        )
    remarks = columns.Remarks(notes)
    others = {name: column for name, column in raw.items() if name != time}
    target = columns.find(target, others) if target else ""
    wanted = {target: others[target]} if target else others
    read = column_types.typed(wanted, remarks, comma=comma)
    read = {name: columns.as_numbers(read[name]) for name in read if name in wanted}
    numbers = {name: column for name, column in read.items() if isinstance(column, np.ndarray)}
    if not numbers:
        raise DataError(
            f"{source} has no numbers in {', '.join(map(repr, wanted))}; expected some."
        )
    name = next(reversed(numbers))
    notes.append(f'times are in "{time}", numbers in "{name}"')
    seen = pd.unique(numbers[name][~np.isnan(numbers[name])])
    if len(seen) == 1:
        raise DataError(
            f'"{name}" of {source} is {seen[0]:g} throughout; expected numbers that change. Name '
            "another TARGET."
        )
    made = pd.Series(numbers[name], index=times[time], name=name)
    lost = int(made.index.isna().sum())
    if lost:
        notes.append(f"rows without a time are left out: {lost:,}")
    return made[made.index.notna()], remarks.units.get(name, "")


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
