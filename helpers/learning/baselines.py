"""What a model has to beat: three rivals without a network, scored on the same test rows."""

import json
import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from helpers.inputs import table as data
from helpers.inputs.answers import answer_frame
from helpers.inputs.picture_folders import Images
from helpers.inputs.series import Series
from helpers.inputs.texts import Texts
from helpers.learning.rivals import of_images, of_series, of_texts
from helpers.looks.amounts import IN_UNIT
from helpers.looks.plots import money
from helpers.looks.tables import Shown, shown


def score(table) -> dict[str, dict[str, float]]:
    """Fit the rivals on the training rows and score them on the test rows.

    Args:
        table: also pictures, texts or a series, whose rivals are in rivals.py.
    Returns:
        {"trivial", "linear", "gradient_boosting"} -> metrics as `data.score` gives them. Trivial
        is the training mean, or the class shares; linear is ridge or logistic regression.
    """
    # scikit-learn 1.6 gives an option that SciPy 1.18 does not know any more; it matters to nobody
    warnings.filterwarnings("ignore", message="Unknown solver options: iprint")
    for kind, rivals_of in {Images: of_images, Texts: of_texts, Series: of_series}.items():
        if isinstance(table, kind):
            return rivals_of(table)
    from sklearn.compose import make_column_transformer
    from sklearn.dummy import DummyClassifier, DummyRegressor
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
    from threadpoolctl import threadpool_limits

    numbers = [name for name in table.features if table.kinds[name] == "number"]
    texts = [name for name in table.features if table.kinds[name] != "number"]
    filled = make_pipeline(SimpleImputer(keep_empty_features=True), StandardScaler())
    levels = OneHotEncoder(max_categories=50, handle_unknown="ignore")
    codes = OrdinalEncoder(max_categories=50, handle_unknown="use_encoded_value", unknown_value=-1)
    flat = make_column_transformer((filled, numbers), (levels, texts))
    coded = make_column_transformer((codes, texts), ("passthrough", numbers))
    boosted = {"categorical_features": list(range(len(texts))) or None, "random_state": 0}
    if table.task == "regression":
        trivial, linear = DummyRegressor(), Ridge()
        boosting = HistGradientBoostingRegressor(**boosted)
    else:
        trivial, linear = DummyClassifier(), LogisticRegression(max_iter=1000)
        boosting = HistGradientBoostingClassifier(**boosted)
    rivals = {
        "trivial": trivial,
        "linear": make_pipeline(flat, linear),
        "gradient_boosting": make_pipeline(coded, boosting),
    }
    # on few rows threads only wait for each other, badly so on a busy machine
    with threadpool_limits(1 if len(table.train) < 20_000 else None):
        return {name: data.score(table, _scores(table, rival)) for name, rival in rivals.items()}


def compare(table, metrics: dict, rivals: dict) -> Shown:
    """Model, rivals and the noise nothing can beat, best first; a line says who wins.

    Returns:
        One row a contender, one column a metric.
    """
    rows = {"this model": metrics} | {name.replace("_", " "): m for name, m in rivals.items()}
    if table.noise_mae is not None:
        rows["noise alone (the limit)"] = {"mae": table.noise_mae}
    key, sign = ("mae", 1) if table.task == "regression" else ("accuracy", -1)
    made = pd.DataFrame(rows).T
    made = made.sort_values(key, key=lambda column: sign * column, kind="stable")
    reached = made.loc[[name for name in made.index if "limit" not in name], key]
    best = " and ".join(reached.index[reached == reached.iloc[0]])
    value = money(reached.iloc[0], table.unit if key == "mae" else "")
    said = "are equal" if (reached == reached.iloc[0]).sum() > 1 else "wins"
    print(f"{best[0].upper()}{best[1:]} {said} on {key}: {value}.")
    return shown(made, units=dict.fromkeys(IN_UNIT, table.unit))


def write(folder: str | os.PathLike, table, **measured) -> Path:
    """Write `folder`/metrics.json: what was measured, and on what."""
    report = {
        "data": table.name,
        "task": table.task,
        "target": table.target,
        "unit": table.unit,
        "rows_train": len(table.train),
        "rows_test": len(table.test),
        "noise_mae": table.noise_mae,
    } | measured
    path = Path(folder, "metrics.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1, allow_nan=False) + "\n")
    return path


def _scores(table, rival) -> pd.DataFrame:
    columns = list(table.features)
    frame = [part[columns].replace({None: np.nan}) for part in (table.train, table.test)]
    rival.fit(frame[0], table.train[table.target])
    if table.task == "regression":
        answers = rival.predict(frame[1])
    else:  # in the order of the classes, which the target's text has, too
        answers = pd.DataFrame(rival.predict_proba(frame[1]), columns=rival.classes_)
        answers = answers.reindex(columns=list(table.classes), fill_value=0)
    return answer_frame(table.target, table.classes, answers, table.test.index)
