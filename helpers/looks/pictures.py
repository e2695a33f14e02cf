"""Pictures as they are, beside what a model made of them."""

import warnings

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from helpers.looks.labels import labels, title

COLUMNS, EACH, MOST, MISTAKES = 5, 2, 20, 4


def grid(images) -> Figure:
    """Some of the pictures to learn from, of every class as many, with its name above."""
    each = max(EACH, COLUMNS // len(images.classes))
    groups = [images.train[images.train["label"] == name] for name in images.classes[:MOST]]
    chosen = pd.concat([group.iloc[place : place + 1] for place in range(each) for group in groups])
    titles = chosen["label"].map(labels(images.classes))
    return _grid(chosen["path"], titles, min(COLUMNS, max(2, len(groups))))


def mistakes(images, scores: pd.DataFrame) -> Figure | None:
    """The test pictures that are most surely taken for another class, if any is.

    Args:
        scores: (n, 1 + classes) as `helpers.predict` gives them, indexed like `images.test`.
    """
    true = images.test.loc[scores.index, "label"]
    wrong = scores[scores["label"] != true]
    if wrong.empty:
        print(f"None of the {len(scores):,} test pictures is taken for another class.")
        return None
    sure = wrong.drop(columns="label").max(axis=1).sort_values(ascending=False)[: 2 * MISTAKES]
    drawn = labels(images.classes)
    titles = [
        f"{drawn[true[name]]} taken\nfor {drawn[wrong.loc[name, 'label']]}, {share:.0%} sure"
        for name, share in sure.items()
    ]
    figure = _grid(images.test.loc[sure.index, "path"], titles, MISTAKES)
    wrong = f"{len(wrong):,} of {len(scores):,} test pictures are wrong"
    figure.suptitle(f"{wrong}; the surest of these mistakes first")
    return figure


def _grid(paths, titles, columns: int) -> Figure:
    from PIL import Image

    rows, lines = -(-len(paths) // columns), 1 + max(title.count("\n") for title in titles)
    size = (7, rows * (min(7 / columns, 1.6) + 0.25 * lines) + 0.4)
    figure, places = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    for axes, path, text in zip(places.flat, paths, titles, strict=False):
        with warnings.catch_warnings(action="ignore"), Image.open(path) as picture:
            picture.draft("RGB", (200, 200))
            axes.imshow(picture.convert("RGB"))
        title(axes, text, fontsize=10)
    return figure
