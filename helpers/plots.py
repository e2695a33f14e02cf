"""The pictures. A title says what to see, axes carry units, amounts are written for people."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

GROUPS = 12  # a column is seen as at most this many groups of rows
CLASSES = 20  # up to this many classes the cells of a confusion matrix carry numbers


def look(table) -> Figure:
    """Left the target's values, right how much of it each column explains by itself.

    A column is cut into groups (its levels, or equal parts of its rows); what it explains is the
    share of the target's variance that lies between the groups. Training rows only.
    """
    target = table.train[table.target]
    shares = pd.Series({name: _explained(table, name) for name in table.features})
    shares = shares.sort_values().tail(GROUPS)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    if table.task == "regression":
        low, high = target.quantile([0.25, 0.75])
        left.hist(target, bins=30)
        left.xaxis.set_major_formatter(lambda value, _: money(value, table.unit))
        left.set_xlabel(_axis(table.target, table.unit))
        half = f"{money(low, table.unit)} to {money(high, table.unit)}"
        left.set_title(f"Half of the rows: {half}")
    else:
        counts = target.value_counts()
        left.bar(counts.index.astype(str), counts)
        left.set_xlabel(table.target)
        left.set_title(f"{counts.iloc[0] / len(target):.0%} are {counts.index[0]}")
    left.set_ylabel("training rows")
    right.barh(shares.index, 100 * shares)
    right.set_xlabel(f"share of {table.target} explained by the column alone, %")
    right.set_title(f"{shares.index[-1]} says most: {shares.iloc[-1]:.0%}")
    return figure


def curves(history, table) -> Axes:
    """Training and test error after each epoch.

    Args:
        history: what `model.fit` returned, or its dict of lists.
    """
    history = getattr(history, "history", history)
    regression = table.task == "regression"
    key = "mae" if regression else "loss"
    unit = table.unit if regression else ""
    train, test = np.asarray(history[key]), np.asarray(history[f"val_{key}"])
    epochs = np.arange(1, len(train) + 1)
    _, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    mark = "o" if len(epochs) == 1 else ""
    axes.plot(epochs, train, marker=mark)
    axes.plot(epochs, test, marker=mark)
    for values, name, color in [(train, "training rows", "C0"), (test, "test rows", "C1")]:
        above = values[-1] >= max(train[-1], test[-1])
        place = {"xytext": (-4, 9 if above else -14), "textcoords": "offset points"}
        axes.annotate(name, (epochs[-1], values[-1]), ha="right", color=color, **place)
    if regression and table.noise_mae is not None:
        axes.axhline(table.noise_mae, color="grey", linestyle=":")
        axes.annotate("noise alone", (1, table.noise_mae), va="bottom", color="grey")
    axes.set_yscale("log")
    for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis(lambda value, _: money(value, unit))
    axes.set_xlabel("epoch")
    axes.set_ylabel(_axis("mean absolute error" if regression else "log loss", unit))
    best = int(np.nanargmin(test)) if np.isfinite(test).any() else 0
    axes.set_title(
        f"Test error ends at {money(test[-1], unit)}, lowest {money(test[best], unit)} "
        f"after epoch {best + 1}"
    )
    return axes


def truth(table, scores: pd.DataFrame) -> Axes:
    """Predicted against true on the test rows: a cloud (regression) or a confusion matrix.

    Args:
        scores: (n, outputs) as `helpers.predict` gives them, indexed like `table.test`.
    """
    predicted = scores[table.target]
    true = table.test.loc[scores.index, table.target]
    return (
        _cloud(table, true, predicted)
        if table.task == "regression"
        else _matrix(table, true, predicted)
    )


def money(value: float, unit: str = "") -> str:
    """An amount as people write it: `$120 k`, `1.3 M`, `0.42`."""
    size = abs(value)
    for factor, name in [(1e9, " G"), (1e6, " M"), (1e3, " k")]:
        if size >= 0.9995 * factor:
            digits = 0 if size >= 99.95 * factor else 1
            number = f"{size / factor:.{digits}f}".removesuffix(".0") + name
            break
    else:
        number = f"{size:.3g}"
    sign = "−" if value < 0 else ""
    return f"{sign}{unit}{number}" if unit in "$€£" else f"{sign}{number} {unit}"


def _cloud(table, true: pd.Series, predicted: pd.Series) -> Axes:
    within = float((predicted - true).abs().quantile(0.9))
    ends = np.array([min(true.min(), predicted.min()), max(true.max(), predicted.max())])
    _, axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")
    axes.fill_between(ends, ends - within, ends + within, color="C1", alpha=0.2, linewidth=0)
    axes.plot(ends, ends, color="C1")
    axes.scatter(true, predicted, s=8, alpha=0.6, linewidths=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: money(value, table.unit))
    axes.set_aspect("equal")
    axes.set_xlabel(_axis(f"true {table.target}", table.unit))
    axes.set_ylabel(_axis(f"predicted {table.target}", table.unit))
    axes.set_title(f"9 of 10 predictions are within {money(within, table.unit)} (the band)")
    return axes


def _matrix(table, true: pd.Series, predicted: pd.Series) -> Axes:
    names = list(table.classes)
    counts = pd.crosstab(true, predicted).reindex(index=names, columns=names, fill_value=0)
    counts = counts.to_numpy()
    wrong = counts - np.diag(np.diag(counts))
    _, axes = plt.subplots(figsize=(5.5, 5), layout="constrained")
    axes.imshow(counts, cmap="Blues")
    if len(names) <= CLASSES:
        for (row, column), count in np.ndenumerate(counts):
            color = "white" if count > counts.max() / 2 else "black"
            axes.text(column, row, str(count), ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"predicted {table.target}, test rows")
    axes.set_ylabel(f"true {table.target}")
    title = f"{np.trace(counts) / counts.sum():.0%} of {counts.sum():,} rows are right"
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        title += f"; most often wrong: {names[row]} taken for {names[column]}"
    axes.set_title(title, wrap=True)
    return axes


def _explained(table, name: str) -> float:
    column, target = table.train[name], table.train[table.target]
    if table.kinds[name] == "number" and column.nunique() > GROUPS:
        groups = pd.qcut(column, GROUPS, duplicates="drop").astype(str)
    else:
        groups = column.astype(str).where(column.isin(column.value_counts().index[:GROUPS]), "")
    values = target.to_frame() if table.task == "regression" else pd.get_dummies(target)
    values = values.astype("float64")
    between = values.groupby(groups.to_numpy()).transform("mean").var(ddof=0).sum()
    return float(between / max(values.var(ddof=0).sum(), np.finfo(float).tiny))


def _axis(name: str, unit: str) -> str:
    return f"{name} ({unit})" if unit else name
