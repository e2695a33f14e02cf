import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from helpers import baselines


def table(task: str):
    random = np.random.default_rng(2)
    frame = pd.DataFrame({"size": random.normal(0, 1, 200), "side": None, "price": 0.0})
    frame["side"] = np.array(["left", "right", None], object)[random.integers(0, 3, 200)]
    frame["price"] = 3 * frame["size"] + (frame["side"] == "left")
    frame.loc[:9, "size"] = np.nan
    if task == "binary":
        frame["price"] = np.where(frame["price"] > 0, "yes", "no").astype(object)
    return SimpleNamespace(
        name="prices",
        train=frame[:150],
        test=frame[150:],
        features=("size", "side"),
        kinds={"size": "number", "side": "text"},
        target="price",
        task=task,
        classes=() if task == "regression" else ("no", "yes"),
        unit="$",
        noise_mae=0.01 if task == "regression" else None,
    )


def test_every_rival_is_scored_and_learns_more_than_the_mean():
    rivals = baselines.score(table("regression"))
    assert list(rivals) == ["trivial", "linear", "gradient_boosting"]
    assert rivals["linear"]["mae"] < 0.2 * rivals["trivial"]["mae"]
    assert rivals["gradient_boosting"]["mae"] < 0.5 * rivals["trivial"]["mae"]


def test_classes_are_scored_by_their_probabilities():
    rivals = baselines.score(table("binary"))
    assert 0.4 < rivals["trivial"]["accuracy"] < 0.75
    assert rivals["linear"]["accuracy"] > 0.9
    assert rivals["linear"]["log_loss"] < rivals["trivial"]["log_loss"]


@pytest.mark.parametrize(
    ("mae", "said"),
    [
        (1.0, "This model wins on mae: $1."),
        (3.0, "Linear wins on mae: $2."),
        (2.0, "This model and linear are equal on mae: $2."),
    ],
)
def test_the_comparison_says_who_wins(mae, said, capsys):
    rivals = {"trivial": {"mae": 9.0}, "linear": {"mae": 2.0}}
    shown = baselines.compare(table("regression"), {"mae": mae}, rivals)
    assert shown["mae"].is_monotonic_increasing
    assert shown.index[0] == "noise alone (the limit)"
    assert capsys.readouterr().out.strip() == said


def test_the_most_accurate_wins_among_classes(capsys):
    rivals = {"trivial": {"accuracy": 0.5, "log_loss": 1.0}}
    baselines.compare(table("binary"), {"accuracy": 0.9, "log_loss": 2.0}, rivals)
    assert "This model wins on accuracy: 0.9" in capsys.readouterr().out


def test_what_was_measured_is_written_down(tmp_path):
    path = baselines.write(tmp_path / "new", table("regression"), epochs=3, metrics={"mae": 1.5})
    report = json.loads(path.read_text())
    assert path.name == "metrics.json"
    assert (report["data"], report["task"], report["unit"]) == ("prices", "regression", "$")
    assert (report["rows_train"], report["rows_test"], report["noise_mae"]) == (150, 50, 0.01)
    assert report["metrics"] == {"mae": 1.5}
    with pytest.raises(ValueError, match="JSON"):
        baselines.write(tmp_path, table("regression"), metrics={"mae": float("nan")})
