"""The pictures. A title says what to see, axes carry units, amounts are written for people."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

from helpers.inputs import metrics
from helpers.inputs.answers import flat_frame
from helpers.looks.amounts import IN_UNIT, money
from helpers.looks.labels import labels, title

GROUPS = 12  # a column is seen as at most this many groups of rows
NAMES = {"mae": "mean absolute error", "log_loss": "log loss", "rmse": "root mean square error"}
ERRORS = ("mae", "rmse", "mse", "log_loss", "loss")  # the less the better
CELLS = 20  # up to this many classes, a confusion matrix is written out in numbers


def look(table) -> Figure:
    """The target's values, and below them how much of them each column explains by itself.

    A column is cut into groups (its levels, or equal parts of its rows); what it explains is the
    share of the target's variance that lies between the groups. Training rows only.
    """
    table = _drawable(table)
    target = table.train[table.target]
    shares = pd.Series({name: _explained(table, name) for name in table.features})
    shares = shares.sort_values().tail(GROUPS)
    sizes = {"figsize": (7, 4.2 + 0.3 * len(shares)), "height_ratios": (3, 1 + 0.3 * len(shares))}
    figure, (above, below) = plt.subplots(2, 1, layout="constrained", **sizes)
    above.set_ylabel("training rows")
    if table.task == "regression":
        above.hist(target, bins=30)
        _amounts(table.target, table.unit, above.xaxis)
        low, high = (money(target.quantile(q), table.unit) for q in (0.25, 0.75))
        title(above, f"Half of the rows: {low} to {high}")
    else:
        counts = target.value_counts()
        above.bar(counts.index.astype(str), counts)
        above.set_xlabel(table.target)
        title(above, f"{counts.iloc[0] / len(target):.0%} are {counts.index[0]}")
    below.barh(shares.index, 100 * shares)
    below.set_xlabel(f"share of {table.target} explained by the column alone, %")
    title(below, f"{shares.index[-1]} says most: {shares.iloc[-1]:.0%}")
    return figure


def curves(history, table) -> Axes:
    """Error on training and test rows after each epoch; `history` is what `model.fit` returned.

    Here and elsewhere rows are called what they are, where a table of another kind has `called`.
    """
    history = getattr(history, "history", history)
    regression = table.task == "regression"
    key, name = ("mae", "mean absolute error") if regression else ("loss", "log loss")
    unit = table.unit if regression else ""
    learned, tested = (f"{part} {_called(table)}" for part in ("training", "test"))
    errors = {learned: history[key], tested: history[f"val_{key}"]}
    axes = plt.subplots(figsize=(7, 4), layout="constrained")[1]
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    _amounts(name, unit, axes.yaxis)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    higher = max(errors, key=lambda rows: errors[rows][-1])
    for rows, values in errors.items():
        epochs = np.arange(1, len(values) + 1)
        line = axes.plot(epochs, values, marker="o" if len(values) == 1 else "")[0]
        # beside the axes, where nothing is drawn; the two are never nearer than a line of text
        place = {"xytext": (1.02, 7 if rows == higher else -7), "va": "center", "ha": "left"}
        place |= {"textcoords": (axes.transAxes, "offset points"), "color": line.get_color()}
        axes.annotate(rows, (1.02, values[-1]), **place)
    low, high = axes.get_ylim()
    if high < 1.1 * low:  # else ticks differ in no digit that is written
        middle = (low * high) ** 0.5
        axes.set_ylim(middle / 1.05, middle * 1.05)
    if regression and table.noise_mae is not None:
        axes.axhline(table.noise_mae, color="grey", linestyle=":")
        axes.annotate("noise alone", (1, table.noise_mae), va="bottom", color="grey")
    test = np.nan_to_num(errors[tested], nan=np.inf)
    last, lowest = money(test[-1], unit), money(test.min(), unit)
    title(axes, f"Test error ends at {last}, lowest {lowest} after epoch {test.argmin() + 1}")
    return axes


def rivals(
    scores: dict[str, dict[str, float]],
    metrics: dict[str, float] | None = None,
    *,
    unit: str = "",
    limit: float | None = None,
) -> Axes:
    """What there is to beat, as bars, best on top; with `metrics` this model among them, in orange.

    Args:
        scores: rival -> its metrics, as `baselines.score` gives them; the first one is drawn.
        unit: the target's, for metrics that have it (mae, rmse).
        limit: what noise alone leaves of that metric.
    """
    rows = {name.replace("_", " "): of for name, of in scores.items()}
    rows |= {"this model": metrics} if metrics else {}
    key = next(iter(metrics or next(iter(rows.values()))))
    values = pd.Series({name: of[key] for name, of in rows.items() if key in of})
    values = values.sort_values(ascending=key not in ERRORS)
    axes = plt.subplots(figsize=(7, 0.7 + 0.5 * len(values)), layout="constrained")[1]
    colors = ["C1" if name == "this model" else "C0" for name in values.index]
    bars = axes.barh(values.index, values, color=colors)
    unit = unit if key in IN_UNIT else ""
    axes.bar_label(bars, [money(value, unit) for value in values], padding=4)
    axes.margins(x=0.15)
    _amounts(NAMES.get(key, key), unit, axes.xaxis)
    best = values.index[-1]
    if limit is not None:
        axes.axvline(limit, color="grey", linestyle=":")
    noise = "" if limit is None else f"; noise alone {money(limit, unit)} (dotted)"
    said = "best" if metrics else "to beat"
    title(axes, f"{best[0].upper()}{best[1:]} is {said}: {money(values.iloc[-1], unit)}{noise}")
    return axes


def measured(metrics: dict) -> Axes | None:
    """`rivals` of a metrics.json, as a job leaves it (`job.metrics`); says so where it has none."""
    if not metrics.get("metrics"):
        print("The notebook measured nothing: helpers.metrics(accuracy=…) writes metrics.json.")
        return None
    about = {"unit": metrics.get("unit", ""), "limit": metrics.get("noise_mae")}
    return rivals(metrics.get("baselines", {}), metrics["metrics"], **about)


def answer(answer, seen, *, unit: str = "") -> Axes | None:
    """One answer among known values: on the histogram of numbers, or the shares of its classes.

    Args:
        answer: of one row, as `helpers.predict` gives it.
        seen: what is true of rows that are known, as examples hold it.
    Returns:
        None where an answer is neither one number nor a class with its probabilities.
    """
    flat = flat_frame(answer)
    name, value = flat.columns[0], flat.iloc[0, 0]
    target = labels([name])[name]
    shares = flat.iloc[0].filter(like="probabilit")
    if len(flat.columns) > 1 and not shares.empty:
        shares = shares.astype("float64")
        shares.index = shares.index.str.replace(r"^probabilit(y|ies)_", "", regex=True)
        shares = shares.sort_values().tail(GROUPS)
        axes = plt.subplots(figsize=(7, 1.2 + 0.3 * len(shares)), layout="constrained")[1]
        axes.bar_label(axes.barh(shares.index, 100 * shares), fmt="%.0f %%", padding=4)
        axes.margins(x=0.15)
        axes.set_xlabel(f"probability of {target}, %")
        title(axes, f"{target}: {labels([value])[value]}, with {shares.iloc[-1]:.0%}")
        return axes
    known = np.asarray(next(iter(seen.values())) if isinstance(seen, dict) else seen)
    if len(flat.columns) > 1 or not pd.api.types.is_number(value) or known.dtype.kind not in "fiu":
        return None
    known = known.ravel()
    axes = plt.subplots(figsize=(7, 3.5), layout="constrained")[1]
    axes.hist(known, bins=30, color="lightgrey")
    axes.axvline(value, color="C1", linewidth=2)
    axes.set_ylabel("known values")
    _amounts(target, unit, axes.xaxis)
    share = int(100 * (known < value).mean())  # 99.6 % is not all
    title(axes, f"{target}: {money(value, unit)}, above {share}% of {len(known):,} known values")
    return axes


def truth(table, scores: pd.DataFrame) -> Axes:
    """Predicted against true on the test rows: a cloud (regression) or a confusion matrix.

    Args:
        scores: (n, outputs) as `helpers.predict` gives them, indexed like `table.test`.
    """
    scores = _drawable(table, scores)
    table = _drawable(table)
    true, predicted = table.test.loc[scores.index, table.target], scores[table.target]
    if table.task == "regression":
        return _cloud(table.target, table.unit, true, predicted)
    return _matrix(table.target, list(table.classes), true, predicted, _called(table))


def agreement(truth, answers, *, unit: str = "") -> list[Axes]:
    """Answers of any kind against the truth, a picture an output: a cloud or a confusion matrix.

    Args:
        truth, answers: as `helpers.score` takes them.
    """
    drawn = []
    for name, (true, predicted) in metrics.pairs(truth, answers).items():
        if true.dtype.kind == "f":
            drawn.append(_cloud(name, unit, pd.Series(true), pd.Series(predicted)))
        else:
            names = sorted({*true, *predicted}, key=lambda n: (not n.isdigit(), n.zfill(9)))
            drawn.append(_matrix(name, names, pd.Series(true), pd.Series(predicted), "answers"))
    return drawn


def spread(answers: pd.Series, *, unit: str = "") -> Axes:
    """How answers are spread: a histogram of numbers, a bar a class."""
    axes = plt.subplots(figsize=(6, 3), layout="constrained")[1]
    name = str(answers.name)
    if pd.api.types.is_numeric_dtype(answers) and answers.dtype != bool:
        axes.hist(answers, bins=min(40, max(5, len(answers) // 3)))
        _amounts(name, unit, axes.xaxis)
        title(axes, f"Half of {len(answers):,} answers are above {money(answers.median(), unit)}")
    else:
        counts = answers.astype(str).value_counts()[:12][::-1]
        axes.barh(counts.index, counts)
        title(axes, f"{len(answers):,} answers: most often {counts.index[-1]}")
    return axes


def trials(tuning) -> Figure:
    """What each trial of `helpers.tune` measured, against its parameters; the best in orange."""
    frame = tuning.trials.dropna(subset=tuning.metric)
    names = list(tuning.best)
    size = (1 + 4 * len(names), 4)
    figure, row = plt.subplots(1, len(names), figsize=size, sharey=True, layout="constrained")
    for name, axes in zip(names, np.atleast_1d(row), strict=True):
        values, colors = frame[name], ["C1"] + ["C0"] * (len(frame) - 1)
        if pd.api.types.is_numeric_dtype(values) and 0 < 10 * values.min() < values.max():
            axes.set_xscale("log")
        axes.scatter(values, frame[tuning.metric], c=colors)
        axes.set_xlabel(name)
    _amounts(f"{tuning.metric} of a trial", "", np.atleast_1d(row)[0].yaxis)
    pairs = tuning.best.items()
    best = ", ".join(f"{k} {money(v) if isinstance(v, float) else v}" for k, v in pairs)
    reached = money(frame[tuning.metric].iloc[0])
    figure.suptitle(f"Best: {tuning.metric} {reached} with {best}", parse_math=False)
    return figure


def _cloud(target: str, unit: str, true: pd.Series, predicted: pd.Series) -> Axes:
    within = (predicted - true).abs().quantile(0.9)
    ends = np.array([min(true.min(), predicted.min()), max(true.max(), predicted.max())])
    axes = plt.subplots(figsize=(5.5, 5.5), layout="constrained")[1]
    axes.fill_between(ends, ends - within, ends + within, color="C1", alpha=0.2, linewidth=0)
    axes.plot(ends, ends, color="C1")
    axes.scatter(true, predicted, s=8, alpha=0.6, linewidths=0)
    axes.set_aspect("equal")
    for axis, name in [(axes.xaxis, "true"), (axes.yaxis, "predicted")]:
        _amounts(f"{name} {target}", unit, axis)
        axis.set_major_locator(MaxNLocator(5))
    title(axes, f"9 of 10 predictions are within {money(within, unit)} (the band)")
    return axes


def _matrix(
    target: str, names: list[str], true: pd.Series, predicted: pd.Series, called: str
) -> Axes:
    counts = pd.crosstab(true.to_numpy(), predicted.to_numpy())
    counts = counts.reindex(index=names, columns=names, fill_value=0).to_numpy()
    axes = plt.subplots(figsize=(5.5, 5), layout="constrained")[1]
    axes.imshow(counts, cmap="Blues")
    for (row, column), count in np.ndenumerate(counts if len(names) <= CELLS else np.empty((0, 0))):
        color = "white" if count > counts.max() / 2 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=color)
    axes.set_xticks(range(len(names)), names, rotation=45 if len(names) > 4 else 0)
    axes.set_yticks(range(len(names)), names)
    axes.set_xlabel(f"predicted {target}")
    axes.set_ylabel(f"true {target}")
    said = f"{np.trace(counts) / counts.sum():.0%} of {counts.sum():,} {called} are right"
    wrong = counts - np.diag(np.diag(counts))
    if wrong.any():
        row, column = np.unravel_index(wrong.argmax(), wrong.shape)
        said += f"\nmost often wrong: {names[row]} taken for {names[column]}"
    title(axes, said)
    return axes


def _called(table) -> str:
    return getattr(table, "called", "rows")


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


def _amounts(name: str, unit: str, axis) -> None:
    axis.set_label_text(f"{name} ({unit})" if unit else name)
    axis.set_major_formatter(lambda value, _: money(value, unit))


def _drawable(table, frame: pd.DataFrame | None = None):
    """The table under names that can be drawn, also its classes'; or a frame of its columns."""
    columns = labels([*table.features, table.target])
    classes = labels(table.classes)

    def drawable(frame: pd.DataFrame) -> pd.DataFrame:
        if table.classes:
            frame = frame.assign(**{table.target: frame[table.target].map(classes)})
        return frame.rename(columns=columns)

    if frame is not None:
        return drawable(frame[[table.target]])
    about = vars(table) | {"train": drawable(table.train), "test": drawable(table.test)}
    about |= {"kinds": {columns[name]: kind for name, kind in table.kinds.items()}}
    about |= {"features": tuple(columns[name] for name in table.features)}
    about |= {"target": columns[table.target], "classes": tuple(map(classes.get, table.classes))}
    return SimpleNamespace(**about)
