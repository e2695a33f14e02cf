"""What a column is good for: whether it can say something about a row not seen yet, whether it says
too much, and a value of it that identifies nobody."""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

from helpers.inputs.columns import (
    Column,
    Digits,
    Remarks,
    Texts,
    as_texts,
    count_levels,
    counted,
    identifier,
    missing,
    whole,
)

LEVELS = 1000  # a text column with more levels says little about the next row
BLOCK = 16_384
NAMED_ID = re.compile(r"(^|_)(id|uuid|guid|key|index|row|nr|no|number)$", re.IGNORECASE)
NAMED_CODE = re.compile(
    r"(^|_)(id|code|zip|zip_?code|post_?code|plz|sku|ean|isbn|upc|gtin|fips|phone)$", re.IGNORECASE
)


def usable(features: dict[str, Column], remarks: Remarks) -> dict[str, Column]:
    """The columns that can say something about a row not seen yet; codes as texts."""
    kept = {}
    for name, column in features.items():
        code = _names_something(name, column)
        if isinstance(column, Digits) and not code:
            code = not _too_many(column) or column.blurred()
            column = column if code else column.numbers()
        column = as_texts(column) if code and isinstance(column, np.ndarray) else column
        if why := _useless(name, column):
            remarks.notes.append(f"{name} is left out: {why}")
            continue
        kept[name] = column
        if code:
            remarks.notes.append(f"{name} holds codes: used as categories, not as numbers")
        elif isinstance(column, Texts) and _wordy(column):
            remarks.notes.append(f"{name} holds sentences: more/text.ipynb learns from their words")
    return kept


def _useless(name: str, column: Column) -> str:
    """Why a column can't help, or ""."""
    seen = len(column) - np.count_nonzero(missing(column))
    if not seen:
        return "it is empty"
    if isinstance(column, np.ndarray):
        if seen == len(column) and column.min() == column.max():
            return f'every row has "{column[0]}"'
        return "it numbers the rows" if _numbers_rows(name, column) else ""
    levels = np.count_nonzero(counted(column))
    if levels == 1 and seen == len(column):
        return f'every row has "{column.levels[column.places[0]]}"'
    if _too_many(column):
        said = f"{levels:,} different texts in {seen:,} rows say nothing about other rows"
        return f"{said}; more/text.ipynb learns from their words" if _wordy(column) else said
    return ""


def _too_many(column: Texts) -> bool:
    """Whether there are so many levels that they say nothing about another row."""
    counts = counted(column)
    levels = np.count_nonzero(counts)
    return levels > 20 and (levels > 0.9 * counts.sum() or levels > LEVELS)


def _snake(name: str) -> str:
    return identifier(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name), "")


def _numbers_rows(name: str, column: np.ndarray) -> bool:
    """Whole numbers, all different, that count up by one or are called an id."""
    if np.isnan(column).any() or not whole(column):
        return False
    counts_up = bool((np.diff(column) == 1).all())
    return counts_up or bool(NAMED_ID.search(_snake(name)) and pd.Index(column).is_unique)


def _names_something(name: str, column: Column) -> bool:
    """Whole numbers of which the column's name says that they are codes."""
    named = bool(NAMED_CODE.search(_snake(name)))
    if isinstance(column, Texts):
        return named and isinstance(column, Digits)
    if not named or not whole(column) or np.nanmin(column) < 0:
        return False
    return count_levels(column, 2) > 2 and not _numbers_rows(name, column)


def _wordy(column: Texts) -> bool:
    """Sentences: four words and more in most of many levels."""
    some = column.levels[:: max(1, len(column.levels) // 200)]
    return len(column.levels) > 20 and sum(level.count(" ") >= 3 for level in some) > len(some) / 2


def warn_of_leaks(features: dict[str, Column], name: str, target: Column, remarks: Remarks) -> None:
    """Note every column that nearly repeats the target: it may not be known beforehand."""
    for feature, column in features.items():
        if _repeats(column, target):
            remarks.notes.append(
                f"{feature} nearly repeats {name}: a leak, if it is not known beforehand "
                "(kept; delete the column to be sure)"
            )


def _repeats(column: Column, target: Column) -> bool:
    most = len(column) / 10
    if isinstance(column, Texts):
        few = np.count_nonzero(counted(column)) <= most
        return few and _left(column.places, len(column.levels), target) < 1e-3
    if isinstance(target, np.ndarray):
        return _correlation(column, [target]) > 0.999
    if count_levels(column, int(most)) > most:
        classes = (target.places == at for at in range(len(target.levels)))
        return _correlation(column, classes) > 0.999
    places, levels = pd.factorize(column)
    return _left(places, len(levels), target) < 1e-3


def _left(places: np.ndarray, levels: int, target: Column) -> float:
    """The share of the target's variance that is left once the level is known."""
    groups, count = places.astype("int64") + 1, levels + 1  # what is missing is a group, too
    rows = np.bincount(groups, minlength=count)
    if isinstance(target, np.ndarray):
        apart = target - target.mean()
        sums, total = np.bincount(groups, apart, count), float(apart @ apart)
        known = float((sums**2 / np.maximum(rows, 1)).sum())
    else:  # the sum over the classes, each 1 where a row is of it and else 0
        classes = len(target.levels)
        pairs = groups * classes + target.places
        if count * classes <= 1_000_000:
            found = np.bincount(pairs, minlength=count * classes)
            cells = np.arange(len(found))
        else:
            cells, found = np.unique(pairs, return_counts=True)
        shares = float((counted(target) ** 2).sum()) / len(places)
        total = len(places) - shares
        known = float((found**2 / np.maximum(rows[cells // classes], 1)).sum()) - shares
    return 1 - known / total if total else 1.0


def _correlation(column: np.ndarray, targets: Iterable[np.ndarray]) -> float:
    """The largest with any of the targets, over the rows where the column is known; 0 where either
    is the same in all of them."""
    known = ~np.isnan(column)
    if not known.all():
        column, targets = column[known], (target[known] for target in targets)
    most = 0.0
    if len(column) < 2:
        return most
    x = column.mean()
    for target in targets:
        y, sums = target.mean(), np.zeros(3)
        for start in range(0, len(column), BLOCK):  # what fits into the processor's cache
            a, b = column[start : start + BLOCK] - x, target[start : start + BLOCK] - y
            sums += a @ b, a @ a, b @ b
        both, spread = float(sums[0]), float(sums[1]) * float(sums[2])
        most = max(most, abs(both) / spread**0.5 if spread > 0 else 0.0)
    return most


def typical(column: Column):
    """A value that identifies nobody: the median, or the most frequent level."""
    if isinstance(column, Texts):
        counts = counted(column)
        return min(column.levels[counts == counts.max()])
    empty = np.isnan(column)
    seen = column[~empty] if empty.any() else column
    low, high = seen.min(), seen.max()
    at_low, middle = np.count_nonzero(seen == low), len(seen) // 2
    if at_low + np.count_nonzero(seen == high) >= len(seen):  # two values: the commoner one
        return float(low if 2 * at_low >= len(seen) else high)
    around = np.partition(seen, middle)
    return float(around[middle] if len(seen) % 2 else (around[:middle].max() + around[middle]) / 2)
