"""A table to learn from: load it, split it, describe it, score answers against it."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from helpers.cloud.client import Session
from helpers.errors import DataError, SettingError, near
from helpers.inputs import files, formats, held_back, metrics, shards
from helpers.inputs.column_types import typed
from helpers.inputs.columns import (
    Column,
    Remarks,
    Texts,
    find,
    from_frame,
    identifier,
    written,
)
from helpers.inputs.files import BUILT_IN, find_files  # noqa: F401  (public here)
from helpers.inputs.game_sales import GAMES, PROPOSED, game_sales
from helpers.inputs.target import read_target, with_target
from helpers.inputs.usefulness import typical, usable, warn_of_leaks

OWN = "game_sales"  # the one with known noise
TASKS = ("regression", "binary", "multiclass")


@dataclass(frozen=True)
class Table:
    """Rows to learn from and rows held back, with what a model needs to know about them.

    `kinds`: feature -> "number" (float64, NaN where missing) or "text" (object, None).
    `classes`: what the target can be, as text; () for a regression. `unit` is the target's.
    `noise_mae`: the error nothing can beat, where the data was made with known noise.
    `proposed`: one row without the target to ask the model about; `notes`: what was done to the
    columns; `built_in`: the rows may be shown, as they belong to nobody. `files` -> bytes: where
    the rows come from, if `train` and `test` are only a sample (see `rows`), split by `seed`.
    """

    name: str
    train: pd.DataFrame
    test: pd.DataFrame
    features: tuple[str, ...]
    kinds: dict[str, str]
    target: str
    task: str
    classes: tuple[str, ...]
    unit: str
    built_in: bool
    noise_mae: float | None
    proposed: pd.DataFrame
    notes: tuple[str, ...]
    files: dict[str, int] = field(default_factory=dict)
    seed: int = 0
    trial: bool = False


def load(
    source: str = "game_sales",
    *,
    target: str = "",
    task: str = "",
    seed: int = 0,
    session: Session | None = None,
    trial: bool | None = None,
) -> Table:
    """Read a table and hold back a quarter of its rows (of `game_sales` its own 400).

    Columns keep the names they have in the file.

    Args:
        source: a built-in name; the path, URL or gs:// address of a file: CSV, JSON lines, Parquet
            or Excel, also as .gz or as the only file of a zip; or a path or gs:// address with a
            `*`: many CSV files, of which a sample is read, and a tenth held back.
        target: the column to predict; "" takes the table's own, or the last column.
        task: regression, binary or multiclass; "" infers it from the target.
        seed: which rows are held back; classes keep their shares.
        session: who reads a gs:// address; default: the cloud this process runs in.
        trial: choose by validation rows: the test rows are left out, and a quarter of the others is
            held back. Default: `helpers.in_trial()`.
    Raises:
        DataError: the table can't be used as it is; the message says what to change.
        SettingError: `task` is unknown.  NotFoundError: there is no such file.
    """
    if task and task not in TASKS:
        raise SettingError(f'task="{task}" is unknown.{near(task, TASKS)}')
    remarks, built_in = Remarks(), source in BUILT_IN
    if built_in:
        found, columns = {}, _built_in(source, remarks)
        target = re.sub(r"^target$", "", target)  # scikit-learn's own word
    else:
        found, columns = _read(source, session, remarks)
    target = find(target, columns) if target else next(reversed(columns))
    index, columns = with_target(columns, source, target, remarks)
    column = columns.pop(target)
    columns = columns if built_in else _features(columns, source, target, remarks)
    values, task, classes = read_target(target, column, task, remarks.notes)
    if not built_in:
        warn_of_leaks(columns, target, values, remarks)
        _tell(found, len(index), task, remarks)
    trial = in_trial() if trial is None else trial
    how = {"source": source, "found": found, "trial": trial}
    train, test = _split(columns | {target: values}, index, seed, remarks.notes, **how)
    for note in remarks.notes:
        print(note)
    proposed = PROPOSED if source == OWN else {name: typical(c) for name, c in columns.items()}
    numbers = {name for name, column in columns.items() if isinstance(column, np.ndarray)}
    return Table(
        name=source if built_in else Path(source).name.partition(".")[0], train=train, test=test,
        features=tuple(columns), target=target, task=task, classes=classes, built_in=built_in,
        kinds={name: "number" if name in numbers else "text" for name in columns},
        unit="" if classes else remarks.units.get(target, ""),
        noise_mae=float(np.abs(game_sales()["noise"][GAMES:]).mean()) if source == OWN else None,
        proposed=pd.DataFrame({name: [proposed[name]] for name in columns}),
        notes=tuple(remarks.notes), files=found, seed=seed, trial=trial,
    )  # fmt: skip


def in_trial() -> bool:
    """Whether this process is a trial of a tuning job, which must not choose by the test rows."""
    return "CLOUD_ML_TRIAL_ID" in os.environ


def rows(table: Table, *, session: Session | None = None) -> pd.DataFrame | shards.Rows:
    """Every row to learn from: `train`, or all those of many files, kept on this machine's disk."""
    if not table.files:
        return table.train
    learned = range(2 if table.trial else 1, shards.GROUPS)
    found = shards.read(table, keep=learned, cloud=session)
    print(f"{len(found):,} rows to learn from, streamed; {len(table.train):,} in the sample")
    return found


def describe(table: Table) -> pd.DataFrame:
    """One line a column, no rows: kind, share missing, and its range or most frequent values."""

    def said(value: float) -> str:
        if abs(value) < 1000:
            return f"{value:.3g}"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.0f}"  # 2019 is a year

    def about(column: pd.Series) -> dict:
        seen = column.dropna()
        if table.kinds.get(column.name, "number" if not table.classes else "text") == "number":
            values = f"{said(seen.min())} to {said(seen.max())}, mean {said(seen.mean())}"
        else:
            counts = seen.value_counts(normalize=True)
            values = ", ".join(f"{level} {share:.0%}" for level, share in counts[:4].items())
            values += f", … ({len(counts)} in all)" if len(counts) > 4 else ""
        kind = table.kinds.get(column.name, f"target ({table.task})")
        return {
            "column": column.name,
            "kind": kind,
            "missing": column.isna().mean(),
            "values": values,
        }

    rows = pd.DataFrame([about(table.train[column]) for column in [table.target, *table.features]])
    rows["missing"] = rows["missing"].map("{:.0%}".format)
    return rows.set_index("column")


def score(table: Table, scores: pd.DataFrame) -> dict[str, float]:
    """Compare answers with the truth in the test rows.

    Args:
        scores: (n, outputs) as `helpers.predict` gives them, indexed like `table.test`.
    Returns:
        Regression: mae and rmse in the target's unit, r2. Classification: accuracy, log_loss.
    """
    return metrics.score(table.test.loc[scores.index, table.target], scores)


def _read(
    source: str, session: Session | None, remarks: Remarks
) -> tuple[dict[str, int], dict[str, Column]]:
    """Find, read, parse, type. -> the files, if this is a sample of many; the columns"""
    many = "*" in source and not re.match("https?://", source)
    found = files.find(source, session)
    with shards.on_disk(found, session, sample=many) as path:
        raw, comma = formats.parse(path, source, remarks.notes)
    return found if many else {}, typed(raw, remarks, comma=comma)


def _features(
    columns: dict[str, Column], source: str, target: str, remarks: Remarks
) -> dict[str, Column]:
    """The columns that say something."""
    found = usable(columns, remarks)
    if not found:
        why = "; ".join(remarks.notes) or "Add one."
        raise DataError(f"{source} has no usable column besides {target}. {why}")
    return found


def _tell(found: dict[str, int], rows: int, task: str, remarks: Remarks) -> None:
    """Note what the table is only a sample of, and what another notebook does better."""
    if found:
        size = tqdm.format_sizeof(sum(found.values()), "B")
        remarks.notes.append(f"{len(found)} files, {size}: {rows:,} rows are the sample")
    if task == "regression":
        remarks.notes += [
            f"{name} orders the rows, one value {step}: more/series.ipynb forecasts such a series "
            "(here the rows to test are drawn at random)"
            for name, step in remarks.steps.items()
        ]


def _split(
    columns: dict[str, Column], index: np.ndarray, seed: int, notes: list[str], *, source: str,
    found: dict[str, int], trial: bool,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Rows to learn from, and those held back; the target is the last column."""
    target = next(reversed(columns))
    fold = shards.group(_frame(columns, index), seed) if found else None
    if source == OWN:
        held = np.arange(len(index)) >= GAMES
    else:
        held = fold == 0 if found else _held_back(target, columns[target], seed, notes)
    if trial:  # what chooses must not judge afterwards
        others = ~held
        index, columns = index[others], {name: c[others] for name, c in columns.items()}
        values = columns[target]
        held = fold[others] == 1 if found else _held_back(target, values, seed, notes)
        notes.append("in a tuning job's trial, validation rows stand in for the test rows")
    learned, tested = np.flatnonzero(~held), np.flatnonzero(held)
    return _frame(columns, index, learned), _frame(columns, index, tested)


def _frame(columns: dict[str, Column], index: np.ndarray, rows=slice(None)) -> pd.DataFrame:
    index = pd.Index(index[rows])
    found = {name: written(column[rows]) for name, column in columns.items()}
    texts = [name for name, values in found.items() if values.dtype == object]
    found |= {name: pd.Series(found[name], index, object) for name in texts}  # none of pandas
    many = len(found) > 100  # pandas warns of that many loose ones once a column is added
    return pd.DataFrame(found, index=index, copy=many)


def _held_back(name: str, target: Column, seed: int, notes: list[str]) -> np.ndarray:
    """Which rows test: a quarter, of each class a quarter, never all of a class. -> (n,) bool"""
    classes = target.levels if isinstance(target, Texts) else []
    groups = [np.flatnonzero(target.places == at) for at in range(len(classes))]
    for at, group in enumerate(groups):
        if len(group) == 1:
            notes.append(f'only one row has {name} "{classes[at]}": not tested')
    return held_back.drawn(groups or [np.arange(len(target))], seed)


def _built_in(name: str, remarks: Remarks) -> dict[str, Column]:
    """A table that comes with the project or with scikit-learn, target last."""
    if name == OWN:
        remarks.units["total_earnings"] = "$"
        return from_frame(game_sales().drop(columns="noise"))
    from sklearn import datasets

    more = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **more)
    frame = bunch.frame.rename(columns=lambda column: identifier(column, "column"))
    if "target_names" in bunch:
        frame["target"] = frame["target"].map(dict(enumerate(bunch.target_names))).astype(object)
    return from_frame(frame)
