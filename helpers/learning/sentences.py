"""Texts as rows of word numbers, scored, and which words push a model most."""

from collections.abc import Callable

import keras
import numpy as np
import pandas as pd
import tensorflow as tf

from helpers.inputs.answers import answer_frame
from helpers.inputs.texts import Texts, split
from helpers.learning.batches import of_arrays

LOOKED_AT, FEWEST = 300, 4


def batches(
    texts: Texts,
    frame: pd.DataFrame,
    *,
    vectorize: keras.layers.TextVectorization,
    batch_size: int,
    seed: int | None = None,
    start_epoch: int = 0,
    start_step: int = 0,
) -> tf.data.Dataset:
    """Texts as numbers of their words, split once, and class numbers.

    Args:
        frame: `texts.train` or `texts.test`, or rows of them.
        vectorize: a layer with a vocabulary.
        seed, start_epoch, start_step: as of `helpers.batches`.
    Returns:
        ((batch, words) int32, (batch,) int64); of several workers each gets its share.
    """
    places = {name: place for place, name in enumerate(texts.classes)}
    labels = frame[texts.target].map(places).to_numpy("int64")
    parts = np.array_split(frame["text"].to_numpy(str), max(1, len(frame) // 4096))
    numbers = tf.concat([tf.cast(vectorize(tf.constant(part)), "int32") for part in parts], axis=0)
    where = {"seed": seed, "start_epoch": start_epoch, "start_step": start_step}
    return of_arrays(numbers, labels, batch_size=batch_size, **where)


def shares(whole: keras.Model, texts: list[str]) -> np.ndarray:
    """A model of raw texts, called with some of them. -> (n, classes)"""
    parts = [texts[i : i + 1024] for i in range(0, len(texts), 1024)]
    return np.concatenate([whole(tf.constant(part), training=False).numpy() for part in parts])


def scores(whole: keras.Model, texts: Texts, frame: pd.DataFrame) -> pd.DataFrame:
    """Score texts with a model in memory; the form is that of `helpers.predict`."""
    found = shares(whole, frame["text"].tolist())
    return answer_frame(texts.target, texts.classes, found, frame.index)


def pushes(score: Callable[[list[str]], np.ndarray], texts: Texts) -> pd.DataFrame:
    """How much each word pushes towards the class a text is taken for.

    Each word is left out of each of up to 300 test texts: what the class's probability loses by
    that is the word's push there. Words of fewer than four texts are not counted.

    Returns:
        One row a class and word: `class`, `word`, `push` (mean), `texts` (how many); largest first.
    """
    step = max(1, len(texts.test) // LOOKED_AT)
    chosen = texts.test["text"].tolist()[::step]
    before = score(chosen)
    made, where = [], []
    for place, text in enumerate(chosen):
        found = split(text)
        for word in set(found):
            made.append(" ".join(other for other in found if other != word))
            where.append((place, word))
    best = before.argmax(axis=1)
    place = np.array([place for place, _ in where])
    lost = before[place, best[place]] - score(made)[np.arange(len(made)), best[place]]
    rows = pd.DataFrame({"word": [word for _, word in where], "push": lost})
    rows["class"] = np.array(texts.classes, object)[best[place]]
    summed = rows.groupby(["class", "word"])["push"].agg(["mean", "size"]).reset_index()
    summed = summed.set_axis(["class", "word", "push", "texts"], axis=1)
    return summed[summed["texts"] >= FEWEST].sort_values("push", ascending=False)
