from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("Agg")

from helpers import plots


@pytest.fixture(autouse=True)
def _closed():
    yield
    mpl.pyplot.close("all")


def table(task: str = "regression"):
    random = np.random.default_rng(1)
    frame = pd.DataFrame({"size": random.normal(10, 2, 80), "noise": random.normal(0, 1, 80)})
    frame["side"] = np.array(["left", None], object)[random.integers(0, 2, 80)]
    frame.loc[:5, "noise"] = np.nan
    frame["price"] = 10_000 * frame["size"]
    if task == "multiclass":
        frame["price"] = np.where(frame["size"] > 11, "dear", "cheap").astype(object)
        frame.loc[frame["size"] < 9, "price"] = "a gift"
    return SimpleNamespace(
        train=frame[:60],
        test=frame[60:],
        features=("size", "noise", "side"),
        kinds={"size": "number", "noise": "number", "side": "text"},
        target="price",
        task=task,
        classes=() if task == "regression" else ("a gift", "cheap", "dear"),
        unit="$" if task == "regression" else "",
        noise_mae=900.0 if task == "regression" else None,
    )


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (120_000, "$", "$120 k"),
        (4_230, "$", "$4.2 k"),
        (999_960, "", "1 M"),
        (-1_300_000, "$", "−$1.3 M"),
        (0.417, "", "0.417"),
        (12_000, "kWh", "12 k kWh"),
        (0, "$", "$0"),
    ],
)
def test_amounts_are_written_for_people(value, unit, expected):
    assert plots.money(value, unit) == expected


def test_the_look_names_the_column_that_says_most():
    left, right = plots.look(table()).axes
    assert "size says most" in right.get_title()
    assert left.get_xlabel() == "price ($)"
    assert left.get_title().startswith("Half of the rows: $")
    assert right.get_xlim()[1] <= 105
    left.figure.canvas.draw()
    assert left.get_xticklabels()[1].get_text().startswith("$")


def test_the_look_at_classes():
    data = table("multiclass")
    left, right = plots.look(data).axes
    count = data.train["price"].value_counts()
    assert left.get_title() == f"{count.iloc[0] / 60:.0%} are {count.index[0]}"
    assert "size says most" in right.get_title()


@pytest.mark.parametrize("epochs", [1, 3])
def test_curves_say_where_the_test_error_ends(epochs):
    history = {"mae": [9e4, 5e4, 2e4][:epochs], "val_mae": [8e4, 4e4, 4.2e4][:epochs]}
    axes = plots.curves(SimpleNamespace(history=history), table())
    last, best, epoch = ("$42 k", "$40 k", 2) if epochs == 3 else ("$80 k", "$80 k", 1)
    assert axes.get_title() == f"Test error ends at {last}, lowest {best} after epoch {epoch}"
    assert axes.get_ylabel() == "mean absolute error ($)"
    assert "noise alone" in [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("epochs", [1, 2, 40])
@pytest.mark.parametrize("apart", [1.0, 1.3])
def test_names_of_curves_stand_clear_of_axes_and_of_each_other(epochs, apart):
    values = [9e4 / n for n in range(1, epochs + 1)]
    history = {"mae": values, "val_mae": [apart * value for value in values]}
    axes = plots.curves(SimpleNamespace(history=history), table())
    axes.figure.canvas.draw()
    names = [text for text in axes.texts if text.get_text().endswith("rows")]
    frame, page = axes.get_window_extent(), axes.figure.bbox
    boxes = [name.get_window_extent() for name in names]
    assert all(box.x0 > frame.x1 and box.x1 <= page.x1 for box in boxes)
    assert not boxes[0].overlaps(boxes[1])


RIVALS = {"trivial": {"mae": 9e4, "r2": 0.0}, "gradient_boosting": {"mae": 2e4, "r2": 0.9}}


def test_rivals_are_bars_the_best_on_top():
    axes = plots.rivals(RIVALS, unit="$", limit=1e4)
    axes.figure.canvas.draw()
    assert [text.get_text() for text in axes.get_yticklabels()] == ["trivial", "gradient boosting"]
    title = "Gradient boosting is to beat: $20 k; noise alone $10 k (dotted)"
    assert axes.get_title() == title
    assert [text.get_text() for text in axes.texts] == ["$90 k", "$20 k"]
    job = {"metrics": {"mae": 1.5e4, "r2": 0.95}, "baselines": RIVALS, "unit": "$"}
    axes = plots.measured(job | {"noise_mae": None})
    assert axes.get_title() == "This model is best: $15 k"
    assert axes.patches[-1].get_facecolor() == mpl.colors.to_rgba("C1")


def test_the_most_accurate_is_the_best():
    axes = plots.rivals({"trivial": {"accuracy": 0.4}}, {"accuracy": 0.9}, unit="$")
    assert axes.get_title() == "This model is best: 0.9"
    assert plots.measured({"metrics": {"accuracy": 0.9}}).get_title() == "This model is best: 0.9"


def test_an_answer_is_marked_among_known_values():
    data = table()
    axes = plots.answer(pd.DataFrame({"price": [1e6]}), data.train["price"], unit="$")
    assert axes.get_title() == "price: $1 M, above 100% of 60 known values"
    assert axes.lines[0].get_xdata()[0] == 1e6
    classes = table("multiclass")
    shares = {"price": ["dear"], "probability_dear": [0.7], "probability_cheap": [0.3]}
    axes = plots.answer(pd.DataFrame(shares), classes.train["price"])
    assert axes.get_title() == "price: dear, with 70%"


def test_curves_of_a_classification_are_its_log_loss():
    history = {"loss": [0.9, 0.5], "val_loss": [1.0, 0.7], "accuracy": [0, 1]}
    axes = plots.curves(history, table("multiclass"))
    assert axes.get_ylabel() == "log loss"
    assert axes.get_title() == "Test error ends at 0.7, lowest 0.7 after epoch 2"
    axes = plots.curves({"loss": [0.6938], "val_loss": [0.6931]}, table("multiclass"))
    axes.figure.canvas.draw()
    assert all(tick.get_text().isdigit() for tick in axes.get_xticklabels())  # whole epochs
    written = [tick.get_text() for tick in axes.get_yticklabels()]
    assert len(set(written)) == len(written) > 1


def test_predicted_against_true_shows_how_far_off():
    data = table()
    scores = (data.test[["price"]] + 5_000).iloc[::-1]
    axes = plots.truth(data, scores)
    assert axes.get_title() == "9 of 10 predictions are within $5 k (the band)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("true price ($)", "predicted price ($)")
    x, y = axes.collections[-1].get_offsets().T
    np.testing.assert_allclose(y - x, 5_000)


def test_a_confusion_matrix_names_the_commonest_mistake():
    data = table("multiclass")
    scores = data.test[["price"]].copy()
    scores.loc[scores["price"] == "dear", "price"] = "cheap"
    right = (scores["price"] == data.test["price"]).mean()
    axes = plots.truth(data, scores)
    title = f"{right:.0%} of 20 rows are right\nmost often wrong: dear taken for cheap"
    assert axes.get_title() == title
    assert sum(int(text.get_text()) for text in axes.texts) == 20
    perfect = plots.truth(data, data.test[["price"]])
    assert perfect.get_title() == "100% of 20 rows are right"


def test_what_is_no_row_is_not_called_one():
    data = table("multiclass")
    data.called = "pictures"
    assert plots.truth(data, data.test[["price"]]).get_title() == "100% of 20 pictures are right"
    drawn = plots.curves({"loss": [0.9], "val_loss": [1.0]}, data).texts
    assert {text.get_text() for text in drawn} == {"training pictures", "test pictures"}
    (axes,) = plots.agreement(["a", "b"], np.array(["a", "a"], object))
    assert axes.get_title().startswith("50% of 2 answers are right")
