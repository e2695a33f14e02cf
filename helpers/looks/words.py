"""The words that push a model of texts most."""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from helpers.looks.labels import labels, title

WORDS, CLASSES = 12, 6


def pushing(pushes: pd.DataFrame) -> Figure:
    """A panel a class (the six with most texts), in it the words that push most towards it.

    Args:
        pushes: as `helpers.learning.sentences.pushes` gives them.
    """
    names = pushes.groupby("class")["texts"].sum().nlargest(CLASSES).index.sort_values()
    columns, classes = min(len(names), 2), labels(names)
    rows = -(-len(names) // columns)
    size = (3.5 * columns, 3.4 * rows + 0.6)
    figure, places = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, sharex=True
    )
    for axes in places.flat[len(names) :]:
        axes.set_axis_off()
    for axes, name in zip(places.flat, names, strict=False):
        most = pushes[(pushes["class"] == name) & (pushes["push"] > 0)].head(WORDS)[::-1]
        axes.barh(most["word"].map(labels(most["word"])), 100 * most["push"])
        title(axes, f"towards {classes[name]}")
        axes.set_xlabel("points of probability lost without it")
    figure.suptitle("The words that push most")
    return figure
