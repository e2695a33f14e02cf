"""What a model of pictures, texts or a series has to beat, fitted on the same training part."""

import numpy as np
import pandas as pd

from helpers.inputs.answers import answer_frame
from helpers.inputs.metrics import score
from helpers.inputs.picture_folders import Images
from helpers.inputs.series import Series, naive
from helpers.inputs.texts import Texts


def of_images(images: Images) -> dict[str, dict[str, float]]:
    """Class shares, and logistic regression on small grey copies of the pictures.

    Returns:
        {"trivial", "linear"} -> accuracy and log_loss on the test pictures.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def grey(frame: pd.DataFrame) -> np.ndarray:
        chosen = images.grey[frame["place"].to_numpy()]
        return chosen.reshape(len(chosen), -1).astype("float32")

    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    return _classified(images, grey(images.train), grey(images.test), linear)


def of_texts(texts: Texts) -> dict[str, dict[str, float]]:
    """Class shares, and logistic regression on TF-IDF of words and pairs of words."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    counted = TfidfVectorizer(ngram_range=(1, 2), max_features=200_000, sublinear_tf=True)
    train = counted.fit_transform(texts.train["text"])
    linear = LogisticRegression(max_iter=1000, C=10)
    return _classified(texts, train, counted.transform(texts.test["text"]), linear)


def of_series(series: Series) -> dict[str, dict[str, float]]:
    """The last value, the value of a season before, and a linear model of the window."""
    from sklearn.linear_model import Ridge

    found = {name: score(series.test.y, y) for name, y in naive(series, series.test).items()}
    # against the window's last value, so that a level can move on; in units of the spread
    last, unseen = series.train.x[:, -1:], series.test.x[:, -1:]
    spread = float(series.train.x.std()) or 1.0
    linear = Ridge().fit((series.train.x - last) / spread, (series.train.y - last) / spread)
    forecast = linear.predict((series.test.x - unseen) / spread).reshape(series.test.y.shape)
    forecast = spread * forecast + unseen
    return found | {"linear": score(series.test.y, forecast)}


def _classified(about, x, x_test, linear) -> dict[str, dict[str, float]]:
    """The class shares and a linear model, scored on what is held back."""
    from sklearn.dummy import DummyClassifier
    from threadpoolctl import threadpool_limits

    truth, found = about.test[about.target], {}
    with threadpool_limits(1 if len(about.train) < 20_000 else None):
        for name, rival in {"trivial": DummyClassifier(), "linear": linear}.items():
            rival.fit(x, about.train[about.target])
            shares = pd.DataFrame(rival.predict_proba(x_test), columns=rival.classes_)
            shares = shares.reindex(columns=list(about.classes), fill_value=0)
            answers = answer_frame(about.target, about.classes, shares, truth.index)
            found[name] = score(truth, answers)
    return found
