"""Which examples are held back to test with, by class or by time."""

import os
from collections.abc import Iterable

import numpy as np
import pandas as pd

NOTE = "in a tuning job's trial, validation examples stand in for the test examples"


def drawn(groups: Iterable[np.ndarray], seed: int) -> np.ndarray:
    """Which rows test: of each group of rows a quarter by lot, never all of it. -> (n,) bool"""
    groups, draw = list(groups), np.random.default_rng(seed)
    held = np.zeros(sum(map(len, groups)), bool)
    for group in groups:
        held[draw.permutation(group)[: max(round(len(group) / 4), int(len(group) > 1))]] = True
    return held


def by_class(frame: pd.DataFrame, label: str, seed: int, notes: list[str]) -> tuple:
    """A quarter of each class, never all of it; a class of one is learned and not tested.

    In a trial of a tuning job the test rows are left out and a quarter of the others is held back,
    because what chose by them could not judge afterwards.

    Returns:
        Two frames: rows to learn from, rows held back.
    """
    train, test = _quarter(frame, label, seed, notes)
    if "CLOUD_ML_TRIAL_ID" in os.environ:
        train, test = _quarter(train, label, seed, [])
        notes.append(NOTE)
    return train, test


def by_time(length: int, fewest: int, notes: list[str]) -> tuple[int, int]:
    """Where the last quarter of a series starts and ends, in steps; `fewest` steps at least.

    In a trial of a tuning job it is the last quarter of what is before the test part.
    """
    start = min(length - length // 4, length - fewest)
    if "CLOUD_ML_TRIAL_ID" not in os.environ:
        return start, length
    notes.append(NOTE)
    return min(start - start // 4, start - fewest), start


def _quarter(frame: pd.DataFrame, label: str, seed: int, notes: list[str]) -> tuple:
    groups = {name: np.flatnonzero(frame[label] == name) for name in sorted(set(frame[label]))}
    held = drawn(groups.values(), seed)
    for name, group in groups.items():
        if len(group) == 1:
            notes.append(f'only one example of "{name}": learned from, not tested')
    return frame[~held], frame[held]
