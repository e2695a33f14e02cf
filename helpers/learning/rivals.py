"""What a model of pictures, texts or a series has to beat, fitted on the same training part."""

import numpy as np
import pandas as pd

from helpers.inputs.answers import answer_frame
from helpers.inputs.images import Images
from helpers.inputs.metrics import score


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
