"""Pictures as they are, beside what a model made of them."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

COLUMNS, ROWS = 8, 2


def grid(images) -> Figure:
    """Some of the pictures to learn from, of every class as many, with its name above."""
    wide = max(1, COLUMNS // len(images.classes))  # pictures of one class side by side
    groups = [images.train[images.train["label"] == name] for name in images.classes[: 3 * COLUMNS]]
    rows = ROWS if len(groups) < 2 * COLUMNS else 1
    drawn = [group.iloc[row * wide : (row + 1) * wide] for row in range(rows) for group in groups]
    chosen = pd.concat(drawn)
    return _grid(chosen["path"], chosen["label"], min(wide * len(groups), 10))


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
    sure = wrong.drop(columns="label").max(axis=1).sort_values(ascending=False)[: 2 * COLUMNS]
    titles = [
        f"{true[name]} taken\nfor {wrong.loc[name, 'label']}, {share:.0%} sure"
        for name, share in sure.items()
    ]
    figure = _grid(images.test.loc[sure.index, "path"], titles, COLUMNS)
    wrong = f"{len(wrong):,} of {len(scores):,} test pictures are wrong"
    figure.suptitle(f"{wrong}; the surest of these mistakes first")
    return figure


def _grid(paths, titles, columns: int) -> Figure:
    from PIL import Image

    rows, lines = -(-len(paths) // columns), 1 + max(title.count("\n") for title in titles)
    size = (11, rows * (11 / columns + 0.2 * lines) + 0.4)
    figure, places = plt.subplots(rows, columns, figsize=size, layout="constrained", squeeze=False)
    for axes in places.flat:
        axes.set_axis_off()
    for axes, path, title in zip(places.flat, paths, titles, strict=False):
        with Image.open(path) as picture:
            picture.draft("RGB", (200, 200))
            axes.imshow(picture.convert("RGB"))
        axes.set_title(title, fontsize=9, parse_math=False)
    return figure
