"""A table to learn from: load it, split it, describe it, score answers against it."""

import gzip
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.cloud import environment, folders, storage
from helpers.cloud.client import Session
from helpers.errors import CloudError, DataError, NotFoundError, SettingError, near
from helpers.inputs import csv_file, metrics, shards
from helpers.inputs.answers import probability_name
from helpers.inputs.game_sales import GAMES, PROPOSED, game_sales

BUILT_IN = ("breast_cancer", "diabetes", "game_sales", "wine")
TASKS = ("regression", "binary", "multiclass")
CLASSES = 100  # a text target with more different values is not a classification
FEWEST_ROWS = 10


@dataclass(frozen=True)
class Table:
    """Rows to learn from and rows held back, with what a model needs to know about them.

    `kinds`: feature -> "number" (float64, NaN where missing) or "text" (object, None).
    `classes`: what the target can be, as text; () for a regression. `unit` is the target's.
    `noise_mae`: the error nothing can beat, where the data was made with known noise.
    `proposed`: one row without the target to ask the model about; `notes`: what was done to the
    columns; `built_in`: the rows may be shown, as they are nobody's own. `files` -> bytes: where
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


def load(
    source: str = "game_sales",
    *,
    target: str = "",
    task: str = "",
    seed: int = 0,
    session: Session | None = None,
) -> Table:
    """Read a table and hold back a quarter of its rows (of `game_sales` its own 400).

    In a trial of a tuning job those rows are left out, and a quarter of the others is held back.

    Args:
        source: a built-in name, the path, URL or gs:// address of a CSV file, or a path or gs://
            address with a `*`: many files, of which a sample is read, and a tenth held back.
        target: the column to predict; "" takes the table's own, or the last column.
        task: regression, binary or multiclass; "" infers it from the target.
        seed: which rows are held back; classes keep their shares.
        session: who reads a gs:// address; default: the cloud this process runs in.
    Raises:
        DataError: the table can't be used as it is; the message says what to change.
        SettingError: `task` is unknown.  NotFoundError: there is no such file.
    """
    if task and task not in TASKS:
        raise SettingError(f'task="{task}" is unknown.{near(task, TASKS)}')
    built_in, many = source in BUILT_IN, "*" in source and not re.match("https?://", source)
    files = shards.find(source, session) if many else {}
    if built_in:
        name, frame, unit = source, *_built_in(source)
        units, notes = {frame.columns[-1]: unit}, []
    else:
        name = Path(source).name.partition(".")[0]
        content = shards.sample(files, session) if files else _read(source, session)
        frame, units, notes = csv_file.parse(content, source)
    wanted = re.sub(r"^target$", "", target) if built_in else target  # scikit-learn's own word
    target = csv_file.find(wanted, frame) if wanted else frame.columns[-1]
    frame, lost = frame[frame[target].notna()], int(frame[target].isna().sum())
    if lost:
        notes.append(f"{lost:,} rows without {target} are left out")
    if len(frame) < FEWEST_ROWS:
        raise DataError(
            f"{source} has {len(frame)} rows with a {target}; expected {FEWEST_ROWS} or more."
        )
    features = frame.drop(columns=target)
    if not built_in:
        features = csv_file.usable(features, notes)
    if features.empty:
        raise DataError(
            f"{source} has no usable column besides {target}. {'; '.join(notes) or 'Add one.'}"
        )
    values, task, classes = _target(frame[target], task, notes)
    if not built_in:
        csv_file.warn_of_leaks(features, values, notes)
    frame = features.assign(**{target: values})
    if files:
        size_mb = sum(files.values()) / 1e6
        notes.append(f"{len(files)} files, {size_mb:,.1f} MB: {len(frame):,} rows are the sample")
    fold = shards.group(frame, seed) if files else None
    held_back = _held_back(values, classes, seed, notes) if fold is None else fold == 0
    noise_mae = None
    if source == "game_sales":
        held_back = np.arange(len(frame)) >= GAMES
        noise_mae = float(np.abs(game_sales()["noise"][GAMES:]).mean())
    if "CLOUD_ML_TRIAL_ID" in os.environ:  # tuning: what chooses must not judge afterwards
        frame, values, others = frame[~held_back], values[~held_back], ~held_back
        held_back = _held_back(values, classes, seed, notes) if fold is None else fold[others] == 1
        notes.append("in a tuning job's trial, validation rows stand in for the test rows")
    for note in notes:
        print(note)
    proposed = pd.DataFrame([PROPOSED])[list(features)] if noise_mae else _typical(features)
    numbers = {column for column in features if pd.api.types.is_numeric_dtype(features[column])}
    return Table(
        name=name, train=frame[~held_back], test=frame[held_back], features=tuple(features),
        kinds={column: "number" if column in numbers else "text" for column in features},
        target=target, task=task, classes=classes, unit="" if classes else units.get(target, ""),
        built_in=built_in, noise_mae=noise_mae, proposed=proposed, notes=tuple(notes),
        files=files, seed=seed,
    )  # fmt: skip


def rows(table: Table, *, session: Session | None = None) -> pd.DataFrame | shards.Rows:
    """Every row to learn from: `train`, or all those of many files, kept on this machine's disk."""
    if not table.files:
        return table.train
    learned = range(2 if "CLOUD_ML_TRIAL_ID" in os.environ else 1, shards.GROUPS)
    found = shards.read(table, keep=learned, cloud=session)
    print(f"{len(found):,} rows to learn from, streamed; {len(table.train):,} in the sample")
    return found


def describe(table: Table) -> pd.DataFrame:
    """One line a column, no rows: kind, share missing, and its range or most frequent values."""

    def about(column: pd.Series) -> dict:
        seen = column.dropna()
        if table.kinds.get(column.name, "number" if not table.classes else "text") == "number":
            values = f"{seen.min():,.6g} to {seen.max():,.6g}, mean {seen.mean():,.6g}"
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


def find_files(source: str) -> list[Path]:
    """The files on this machine that `source` names, from the working directory or the project."""
    if source in BUILT_IN or re.match(r"gs://|https?://", source):
        return []
    if source.startswith("/content/drive/") and not Path("/content/drive/MyDrive").is_dir():
        how = 'from google.colab import drive; drive.mount("/content/drive")'
        raise NotFoundError(f'DATA="{source}" is on a Drive that is not mounted. Run: {how}')
    if "*" in source:
        return [Path(path) for path in shards.find(source, None)]
    paths = (folder / source for folder in (Path.cwd(), folders.project_root()))
    return [path for path in paths if path.is_file()][:1]


def _read(source: str, cloud: Session | None) -> bytes:
    if source.startswith("gs://"):
        content = storage.read_bytes(cloud or environment.from_environment(), source)
    elif re.match(r"https?://", source):
        import httplib2

        try:
            answer, content = httplib2.Http(timeout=60).request(source)
        except (OSError, httplib2.HttpLib2Error) as error:
            raise CloudError(f"{source} did not answer ({error}). Try again.") from error
        if answer.status != 200:
            raise NotFoundError(f"{source} answered {answer.status}; expected a CSV file.")
    else:
        found = find_files(source)
        if not found:
            around = near(source, [*BUILT_IN, *(file.name for file in Path.cwd().glob("*.csv"))])
            raise NotFoundError(f'DATA="{source}": no such file in {Path.cwd()}.{around}')
        content = found[0].read_bytes()
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _target(column: pd.Series, task: str, notes: list[str]) -> tuple[pd.Series, str, tuple]:
    """The target's values as floats or class names, the task, and the classes."""
    name, levels = column.name, column.nunique()
    number = pd.api.types.is_numeric_dtype(column)
    if levels < 2:
        raise DataError(f"Every row has the same {name} ({column.iloc[0]}); expected two or more.")
    if not task:
        whole = number and bool((column % 1 == 0).all())
        few = whole and levels <= 10 and len(column) >= 20 * levels
        task = "binary" if levels == 2 else "multiclass" if few or not number else "regression"
        if few and levels > 2:
            notes.append(
                f'{name} holds {levels} whole numbers, taken as classes (or set task="regression")'
            )
    if task == "regression":
        if number:
            return column.astype("float64"), task, ()
        example = next(value for value in column)
        raise DataError(f'{name} is text ("{example}"); a regression needs numbers.')
    if levels > CLASSES or (task == "binary" and levels > 2):
        most = 2 if task == "binary" else CLASSES
        raise DataError(
            f"{name} has {levels:,} different values; {task} takes at most {most}. "
            "Choose another target, or group its values."
        )
    text = column.map("{:g}".format) if number else column.astype(str)
    classes = tuple(f"{level:g}" if number else str(level) for level in sorted(set(column)))
    names: dict[str, str] = {}
    for one in classes:
        other = names.setdefault(probability_name(one), one)
        if other != one:
            raise DataError(
                f'The classes "{other}" and "{one}" of {name} differ in signs only; rename one.'
            )
    return text.astype(object), task, classes


def _held_back(
    target: pd.Series, classes: Iterable[str], seed: int, notes: list[str]
) -> np.ndarray:
    """Which rows test: a quarter, of each class a quarter, never all of a class. -> (n,) bool"""
    draw, held_back = np.random.default_rng(seed), np.zeros(len(target), bool)
    groups = [np.flatnonzero(target == name) for name in classes] or [np.arange(len(target))]
    for group in groups:
        chosen = draw.permutation(group)[: max(round(len(group) / 4), int(len(group) > 1))]
        held_back[chosen] = True
        if len(group) == 1:
            notes.append(f'only one row has {target.name} "{target.iloc[group[0]]}": not tested')
    return held_back


def _typical(features: pd.DataFrame) -> pd.DataFrame:
    """One row nobody owns: medians and the most frequent levels."""

    def middle(column: pd.Series):
        if not pd.api.types.is_numeric_dtype(column):
            return column.mode().iloc[0]
        return float(column.median() if column.nunique() > 2 else column.mode().iloc[0])

    return pd.DataFrame([{name: middle(features[name]) for name in features}])


def _built_in(name: str) -> tuple[pd.DataFrame, str]:
    """A table that comes with the project or with scikit-learn, target last; its target's unit."""
    if name == "game_sales":
        return game_sales().drop(columns="noise"), "$"
    from sklearn import datasets

    more = {"scaled": False} if name == "diabetes" else {}
    bunch = getattr(datasets, f"load_{name}")(as_frame=True, **more)
    frame = bunch.frame.rename(columns=lambda column: csv_file.identifier(column, "column"))
    if "target_names" in bunch:
        frame["target"] = frame["target"].map(dict(enumerate(bunch.target_names))).astype(object)
    return frame.astype(dict.fromkeys(frame.columns[:-1], "float64")), ""
