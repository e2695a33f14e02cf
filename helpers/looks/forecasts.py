"""A series, its forecasts beside what came, and how the error grows with the steps ahead."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

from helpers.inputs.series import naive
from helpers.looks.labels import labels
from helpers.looks.plots import money

NAMES = {"last_value": "last value", "seasonal": "a season before"}
COLORS = {"this model": "C1", "last value": "C0", "a season before": "C2"}


def look(series) -> Axes:
    """The whole series; the part held back to test on a grey ground."""
    start, end = series.held
    axes = _axes(series)
    axes.plot(series.values.index[:end], series.values[:end], linewidth=1)
    axes.axvspan(series.values.index[start], series.values.index[end - 1], color="grey", alpha=0.15)
    axes.set_title(
        f"{end:,} steps of one {series.step}; the last {end - start:,} are held back",
        parse_math=False,
    )
    return axes


def beside_truth(series, answers: np.ndarray) -> Axes:
    """Forecasts one after the other, each of HORIZON steps, over what came.

    Args:
        answers: (n, HORIZON) for `series.test`, as `helpers.predict` gives them.
    """
    start, end = series.held
    axes = _axes(series)
    shown = series.values.iloc[max(0, start - series.horizon) : end]
    axes.plot(shown.index, shown, color="black", linewidth=1, label="what came")
    after, drawn = start, 0
    for place, forecast in zip(series.test.at, answers, strict=True):
        if place >= after:
            times = series.values.index[place : place + series.horizon]
            mark = "o" if series.horizon == 1 else ""
            label = "" if drawn else f"forecast, {series.horizon} steps at once"
            axes.plot(times, forecast, color="C1", marker=mark, label=label)
            after, drawn = place + series.horizon, drawn + 1
    axes.legend(frameon=False)
    error = money(float(np.abs(answers - series.test.y).mean()), series.unit)
    axes.set_title(f"Off by {error} on average, {drawn} forecasts in a row", parse_math=False)
    return axes


def by_step(series, answers: np.ndarray) -> Axes:
    """Mean absolute error at each step ahead, beside forecasts without a model."""
    axes = plt.subplots(figsize=(7, 4), layout="constrained")[1]
    steps = np.arange(1, series.horizon + 1)
    rivals = {NAMES[name]: found for name, found in naive(series, series.test).items()}
    for name, found in ({"this model": answers} | rivals).items():
        error = np.abs(found - series.test.y).mean(axis=0)
        axes.plot(steps, error, marker="o", label=name, color=COLORS[name])
    if series.noise_mae is not None:
        axes.axhline(series.noise_mae, color="grey", linestyle=":", label="noise alone")
    axes.set_ylim(bottom=0)
    axes.set_xlabel(f"steps ahead, of one {series.step}")
    axes.set_ylabel(
        f"mean absolute error ({series.unit})" if series.unit else "mean absolute error"
    )
    axes.yaxis.set_major_formatter(lambda value, _: money(value, series.unit))
    axes.xaxis.set_major_locator(plt.MaxNLocator(integer=True))
    axes.legend(frameon=False)
    first, last = (np.abs(answers - series.test.y).mean(axis=0)[place] for place in (0, -1))
    said = f"Off by {money(float(first), series.unit)} one step ahead"
    if series.horizon > 1:
        said += f", by {money(float(last), series.unit)} at step {series.horizon}"
    axes.set_title(said, parse_math=False)
    return axes


def _axes(series) -> Axes:
    axes = plt.subplots(figsize=(7, 3.6), layout="constrained")[1]
    target = labels([series.target])[series.target]
    axes.set_ylabel(f"{target} ({series.unit})" if series.unit else target)
    axes.yaxis.set_major_formatter(lambda value, _: money(value, series.unit))
    dates = AutoDateLocator(maxticks=6)
    axes.xaxis.set_major_locator(dates)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(dates))
    return axes
