"""Answers against the truth, and metrics.json: each kind of answer by what it is."""

import json

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics as sk

import helpers
from helpers.errors import SettingError
from helpers.inputs.answers import answer_names

DRAW = np.random.default_rng(4)
SHARES = DRAW.dirichlet([1, 1, 1], 50)
CLASSES = DRAW.integers(0, 3, 50)


def test_numbers_of_any_shape():
    truth, answers = DRAW.normal(size=(50, 7)), DRAW.normal(size=(50, 7))
    found = helpers.score(truth, answers)
    assert found["mae"] == pytest.approx(sk.mean_absolute_error(truth, answers))
    assert found["rmse"] == pytest.approx(sk.mean_squared_error(truth, answers) ** 0.5)
    flat = helpers.score(truth[:, 0], answers[:, :1])
    assert flat == helpers.score(truth[:, :1], answers[:, 0])
    assert flat["r2"] == pytest.approx(sk.r2_score(truth[:, 0], answers[:, 0]))


@pytest.mark.parametrize("truth", [CLASSES, CLASSES.astype(float), CLASSES[:, None],
                                   np.eye(3)[CLASSES]])  # fmt: skip
def test_classes_by_probabilities(truth):
    found = helpers.score(truth, SHARES.astype("float32"))
    assert found["accuracy"] == sk.accuracy_score(CLASSES, SHARES.argmax(axis=1))
    assert found["log_loss"] == pytest.approx(sk.log_loss(CLASSES, SHARES), rel=1e-5)
    assert set(helpers.score(truth, SHARES * 20 - 10)) == {"accuracy"}  # logits are no shares


@pytest.mark.parametrize("kind", [int, float, bool])
def test_yes_or_no(kind):
    truth, share = CLASSES > 0, SHARES[:, :1]
    found = helpers.score(truth.astype(kind), share)
    assert found["log_loss"] == pytest.approx(sk.log_loss(truth, share[:, 0]))
    assert found["accuracy"] == sk.accuracy_score(truth, share[:, 0] > 0.5)


def test_named_answers_with_their_probabilities():
    names = np.array(["cat", "dog", "a b"], object)
    best = names[SHARES.argmax(axis=1)]
    loss = sk.log_loss(CLASSES, SHARES)
    frame = pd.DataFrame(SHARES, columns=["probability_cat", "probability_dog", "probability_a_b"])
    frame.insert(0, "animal", best)
    found = helpers.score(names[CLASSES], frame)
    assert found["log_loss"] == pytest.approx(loss)
    assert found["accuracy"] == sk.accuracy_score(CLASSES, SHARES.argmax(axis=1))
    answers = {"digit": SHARES.argmax(axis=1), "probabilities": SHARES}
    assert helpers.score(CLASSES, answers) == pytest.approx(found)
    assert set(helpers.score(names[CLASSES], {"animal": best})) == {"accuracy"}


def test_texts_as_tensorflow_gives_them_are_texts():
    names = np.array(["猫", "schön $1", "a"], object)[CLASSES]
    told = np.array([name.encode() for name in names], object)
    assert helpers.score(names, told) == helpers.score(told, names) == {"accuracy": 1}
    shares = dict(zip(answer_names("is", ["猫", "schön $1", "a"])[1:], SHARES.T, strict=True))
    found = helpers.score(names, {"is": told[:, None], **shares})
    assert found["accuracy"] == 1
    assert found["log_loss"] == pytest.approx(sk.log_loss(CLASSES, SHARES))


def test_several_outputs_have_their_names_before_them():
    truth = {"price": DRAW.normal(size=50), "risk": CLASSES}
    answers = {"price": DRAW.normal(size=(50, 1)), "risk": SHARES, "more": SHARES}
    found = helpers.score(truth, answers)
    assert set(found) == {"price_mae", "price_rmse", "price_r2", "risk_accuracy", "risk_log_loss"}
    assert helpers.score({"risk": CLASSES}, answers) == helpers.score(CLASSES, SHARES)


@pytest.mark.parametrize(
    ("truth", "answers"),
    [
        (CLASSES[:9], SHARES),
        (CLASSES + 7, SHARES),
        (CLASSES, {"one": CLASSES, "two": CLASSES}),
        ({"other": CLASSES}, {"one": CLASSES}),
        (np.array(["a"] * 50), SHARES),
        (SHARES, SHARES[:, :2]),
        ([], []),
        ([], pd.DataFrame({"price": []})),
        (pd.date_range("2020", periods=50), SHARES[:, 0]),
        (np.full((50, 3), "2020", "M8[D]"), SHARES),
        (SHARES[:, 0], np.full(50, 3, "m8[s]")),
        (SHARES[:, 0] * 1j, SHARES[:, 0]),
    ],
)
def test_what_can_not_be_compared_is_refused(truth, answers):
    with pytest.raises(SettingError, match="can't be compared with the answers"):
        helpers.score(truth, answers)


def test_metrics_are_written_where_a_job_looks(tmp_path, monkeypatch):
    monkeypatch.setenv("OUTPUT_DIR", str(tmp_path / "job"))
    path = helpers.metrics(accuracy=np.float32(0.5), loss=1, about={"epochs": 5},
                           baselines={"trivial": {"accuracy": 0.25}})  # fmt: skip
    assert path == tmp_path / "job" / "metrics.json"
    assert json.loads(path.read_text()) == {
        "epochs": 5,
        "metrics": {"accuracy": 0.5, "loss": 1},
        "baselines": {"trivial": {"accuracy": 0.25}},
    }
    assert helpers.metrics(folder=tmp_path, mae=1.0).parent == tmp_path
    monkeypatch.delenv("OUTPUT_DIR")
    monkeypatch.chdir(tmp_path)
    assert helpers.metrics(mae=2.0).resolve() == tmp_path / "metrics.json"


@pytest.mark.parametrize("value", [float("nan"), np.inf, "0.5", None, True, [1.0]])
def test_what_is_no_number_is_no_metric(value, tmp_path):
    with pytest.raises(SettingError, match="accuracy=.* is no metric; expected a finite number"):
        helpers.metrics(folder=tmp_path, accuracy=value)
    assert not list(tmp_path.iterdir())
