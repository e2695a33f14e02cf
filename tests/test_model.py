import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

import helpers
from helpers.errors import SettingError
from tests.lazily import export, keras, tf

LOWEST = float(np.finfo("float32").min)


def table(task: str = "regression", rows: int = 60, **changes):
    """A small table: two numbers (one with gaps), one text with gaps, the target."""
    random = np.random.default_rng(7)
    frame = pd.DataFrame(
        {
            "size": random.normal(10, 2, rows),
            "age": random.integers(0, 9, rows).astype("float64"),
            "side": np.array(["north", "south", "west"], object)[random.integers(0, 3, rows)],
        }
    )
    frame.loc[:3, "age"] = np.nan
    frame.loc[5:8, "side"] = None
    if task == "regression":
        frame["price"] = 1000 * frame["size"] + 500.0
        classes = ()
    else:
        classes = ("a few", "many", "none")
        frame["price"] = np.array(classes, object)[(frame.index % 3).to_numpy()]
    cut = rows * 3 // 4
    made = {
        "name": "prices",
        "train": frame[:cut],
        "test": frame[cut:],
        "features": ("size", "age", "side"),
        "kinds": {"size": "number", "age": "number", "side": "text"},
        "target": "price",
        "task": task,
        "classes": classes,
        "unit": "$" if task == "regression" else "",
        "built_in": False,
        "noise_mae": None,
        "proposed": frame[cut : cut + 1][["size", "age", "side"]],
        "notes": (),
    }
    return SimpleNamespace(**made | changes)


def network(data):
    keras.utils.set_random_seed(3)
    inputs, x = helpers.encode(data)
    x = keras.layers.Dense(8, activation="relu")(x)
    return keras.Model(inputs, helpers.decode(data, x))


def encoded(data, **columns) -> np.ndarray:
    inputs, x = helpers.encode(data)
    columns = {name: tf.constant(values) for name, values in columns.items()}
    return keras.Model(inputs, x)(columns).numpy()


def row_numbers(dataset, steps: int) -> list[float]:
    return [float(v) for columns, _ in dataset.take(steps) for v in columns["size"].numpy()]


def test_numbers_are_standardised_with_training_rows_only():
    data = table()
    data.test.loc[:, "size"] = 1e6
    x = encoded(data, **{"size": [10.0], "age": [4.0], "side": ["west"]})
    train = data.train["size"]
    assert x[0, 0] == pytest.approx((10 - train.mean()) / train.std(ddof=0), rel=1e-5)


def test_a_missing_number_is_the_mean_and_says_so_where_training_had_gaps():
    data = table()
    sizes, ages = [np.nan, LOWEST, 9.0], [LOWEST, 2.0, np.nan]
    x = encoded(data, **{"size": sizes, "age": ages, "side": ["west"] * 3})
    assert x.shape[1] == 2 + 1 + 4  # numbers, one gap column, four levels with ""
    np.testing.assert_allclose(x[:2, 0], 0, atol=1e-6)
    np.testing.assert_allclose(x[[0, 2], 1], 0, atol=1e-6)
    np.testing.assert_array_equal(x[:, 2], [1, 0, 1])


def test_levels_come_from_training_rows_and_unknown_ones_are_zeros():
    data = table()
    data.test.loc[:, "side"] = "east"
    x = encoded(data, **{"size": [1.0] * 3, "age": [1.0] * 3, "side": ["east", "", "south"]})
    np.testing.assert_array_equal(x[:, 3:].sum(axis=1), [0, 1, 1])
    assert not np.array_equal(x[1], x[2])


def test_rare_levels_share_one_place_with_unknown_ones():
    names = [f"level {i:02d}" for i in range(60)]
    data = table(rows=160)
    data.train = data.train.assign(**{"side": (names + names[:50] + names[:50])[:120]})
    x = encoded(data, **{"size": [1.0] * 3, "age": [1.0] * 3, "side": ["?", names[59], names[0]]})
    assert x.shape[1] == 3 + 51
    np.testing.assert_array_equal(x[:, -1], [1, 1, 0])


def test_regression_answers_in_the_targets_unit():
    data = table()
    answers = export.scores(network(data), data, data.train)["price"]
    target = data.train["price"]
    assert abs(answers.mean() - target.mean()) < 2 * target.std()


@pytest.mark.parametrize(("task", "classes"), [("binary", 2), ("multiclass", 3)])
def test_classification_answers_with_probabilities(task, classes):
    data = table(task)
    data.classes = data.classes[:classes]
    frame = data.train[data.train["price"].isin(data.classes)]
    model = network(data)
    columns, labels = next(iter(helpers.batches(data, frame, batch_size=100)))
    probabilities = model(columns).numpy()
    assert probabilities.shape == (len(frame), classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    assert [data.classes[i] for i in labels.numpy()] == list(frame["price"])


def test_an_epoch_holds_every_row_once_in_an_order_of_its_own():
    data = table()
    rows, steps = sorted(data.train["size"].astype("float32").tolist()), 5
    drawn = row_numbers(helpers.batches(data, data.train, batch_size=10, seed=1), 2 * steps)
    first, second = drawn[: len(rows)], drawn[len(rows) :]
    assert sorted(first) == rows == sorted(second)
    assert first != second
    again = helpers.batches(data, data.train, batch_size=10, seed=1)
    assert row_numbers(again, 2 * steps) == drawn
    other = helpers.batches(data, data.train, batch_size=10, seed=2)
    assert row_numbers(other, steps) != first


def test_a_later_epoch_can_be_the_first():
    data = table()
    whole = row_numbers(helpers.batches(data, data.train, batch_size=10, seed=1), 15)
    rest = helpers.batches(data, data.train, batch_size=10, seed=1, start_epoch=2)
    assert row_numbers(rest, 5) == whole[2 * len(data.train) :]


def test_without_a_seed_rows_come_once_and_in_order():
    data = table()
    ordered = helpers.batches(data, data.test, batch_size=4)
    assert row_numbers(ordered, 99) == data.test["size"].astype("float32").tolist()
    with pytest.raises(SettingError, match="batch_size=0"):
        helpers.batches(data, data.test, batch_size=0)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [(32, 32), (1, 1), (13, 13), (1000, 500), (1009, 1009), (1018, 509), (2026, 1013)],
)
def test_an_execution_never_crosses_an_epoch(steps, expected):
    assert helpers.steps_per_execution(steps) == expected
    assert steps % expected == 0


def test_training_lowers_the_error_and_repeats_itself():
    data = table(rows=200)
    runs = []
    for _ in range(2):
        model = network(data)
        model.compile("adam", "mse", metrics=["mae"], steps_per_execution=4)
        rows = helpers.batches(data, data.train, batch_size=38, seed=5)
        unseen = helpers.batches(data, data.test, batch_size=64)
        fit = {"epochs": 30, "steps_per_epoch": 4, "validation_data": unseen, "verbose": 0}
        runs.append(model.fit(rows, **fit).history["val_mae"])
    assert runs[0] == runs[1]
    assert runs[0][-1] < 0.8 * runs[0][0]


@pytest.mark.filterwarnings(
    "error", "ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
@pytest.mark.parametrize(("batch_size", "execution"), [(7, 4), (50, 4), (1024, 32), (1024, 1)])
def test_watching_test_rows_warns_of_nothing(batch_size, execution):
    """Whether the test rows fill many batches or a part of one, fewer than an execution has."""
    data = table(rows=200)
    model = network(data)
    model.compile("adam", "mse", steps_per_execution=execution)
    unseen = helpers.batches(data, data.test, batch_size=batch_size)
    assert unseen.cardinality() == -(-50 // batch_size)
    rows = helpers.batches(data, data.train, batch_size=4, seed=5)
    fit = {"epochs": 2, "steps_per_epoch": 32, "validation_data": unseen, "verbose": 0}
    assert len(model.fit(rows, **fit).history["val_loss"]) == 2
    model.evaluate(helpers.batches(data, data.test, batch_size=batch_size), verbose=0)


@pytest.mark.parametrize("task", ["regression", "multiclass"])
def test_the_saved_model_answers_as_the_keras_model(task, tmp_path):
    data = table(task, unit="$")
    model = network(data)
    folder = helpers.export(model, data, tmp_path / "model")
    assert folder == tmp_path / "model" / "1"
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["1"]
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    inputs = signature.structured_input_signature[1]
    assert {name: (list(s.shape), s.dtype.name) for name, s in inputs.items()} == {
        "size": ([None], "float32"),
        "age": ([None], "float32"),
        "side": ([None], "string"),
    }
    columns = next(iter(helpers.batches(data, data.test[list(data.features)], batch_size=99)))
    answers = {name: value.numpy() for name, value in signature(**columns).items()}
    expected = export.scores(model, data, data.test)
    assert set(answers) == set(expected.columns)
    if task == "regression":
        np.testing.assert_allclose(answers["price"], expected["price"], rtol=1e-5)
    else:
        assert [c.decode() for c in answers["price"]] == list(expected["price"])
        for name in expected.columns[1:]:
            assert name.startswith("probability_")
            np.testing.assert_allclose(answers[name], expected[name], rtol=1e-4)


def test_the_saved_model_takes_gaps_and_unknown_levels(tmp_path):
    data = table()
    folder = helpers.export(network(data), data, tmp_path)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    row = {"size": [np.nan, LOWEST], "age": [LOWEST, np.nan], "side": ["", "never seen"]}
    answer = signature(**{name: tf.constant(value) for name, value in row.items()})["price"]
    assert np.isfinite(answer.numpy()).all()


def test_a_target_may_have_a_name_that_python_keeps(tmp_path):
    data = table("multiclass", target="class")
    data.train = data.train.rename(columns={"price": "class"})
    folder = helpers.export(network(data), data, tmp_path)
    signature = tf.saved_model.load(str(folder)).signatures["serving_default"]
    assert "class" in signature.structured_outputs


def test_a_second_export_replaces_the_first(tmp_path):
    data = table()
    helpers.export(network(data), data, tmp_path)
    (tmp_path / "1" / "old").write_text("left over")
    helpers.export(network(data), data, tmp_path)
    assert not (tmp_path / "1" / "old").exists()


def test_the_schemas_say_what_goes_in_and_what_comes_out(tmp_path):
    data = table()
    extra = helpers.export(network(data), data, tmp_path) / "assets.extra"
    instance = json.loads((extra / "instance.yaml").read_text())
    assert instance["required"] == ["size", "age", "side"]
    assert instance["properties"]["size"]["nullable"] is False
    assert instance["properties"]["age"] == {
        "type": "number",
        "nullable": True,
        "minimum": data.train["age"].min(),
        "maximum": data.train["age"].max(),
    }
    assert instance["properties"]["side"]["enum"] == ["north", "south", "west"]
    assert instance["example"] == data.proposed.iloc[0].to_dict()
    assert instance["x-missing"] == {"number": LOWEST, "string": ""}
    assert instance["x-tensorflow"] == tf.__version__
    prediction = json.loads((extra / "prediction.yaml").read_text())
    assert prediction == {
        "title": "price",
        "type": "number",
        "x-task": "regression",
        "x-unit": "$",
    }
    data = table("multiclass")
    extra = helpers.export(network(data), data, tmp_path) / "assets.extra"
    prediction = json.loads((extra / "prediction.yaml").read_text())
    assert prediction["properties"]["price"]["enum"] == ["a few", "many", "none"]
    assert len(prediction["properties"]) == 4


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16"])
def test_half_precision_is_served_in_full(tmp_path, policy, capsys):
    """TensorFlow Serving has no JSON for halves."""
    x = keras.Input((3,), name="x", dtype="float32" if policy[0] == "m" else policy)
    model = keras.Model(x, keras.layers.Dense(2, dtype=policy, name="y")(x))
    rows = np.linspace(-1, 1, 12, dtype="float32").reshape(4, 3)
    saved = tf.saved_model.load(helpers.export(model, folder=tmp_path))
    assert "x (float32, n × 3) → y (float32, n × 2)" in capsys.readouterr().out
    expected = tf.cast(model(tf.cast(rows, x.dtype)), "float32")
    found = saved.signatures["serving_default"](x=tf.constant(rows))["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-2)


def joined_and_apart() -> tuple:
    """Models that take a list of two, as `fit` gives it, and each of the two by its name. Classes
    of a function: in a module, they would import TensorFlow into every test worker."""

    class Joined(keras.Model):
        def __init__(self):
            super().__init__()
            self.out = keras.layers.Dense(1)

        def call(self, inputs):
            one, two = inputs
            return {"sum": {"of": self.out(keras.ops.concatenate([one, two], axis=1))}, "one": one}

    class Apart(Joined):
        def call(self, one, two):
            return super().call([one, two])

    return Joined(), Apart()


def test_inputs_and_outputs_have_names_however_a_model_takes_them(tmp_path, capsys):
    one, two = np.ones((4, 3), "float32"), np.zeros((4, 2), "float32")
    two_inputs = [keras.Input((3,), name="zeta"), keras.Input((2,), name="alpha")]
    outputs = [keras.layers.Dense(n + 1, name=f"y{n}")(x) for n, x in enumerate(two_inputs)]
    unnamed = [keras.Input((3,)), keras.Input((2,))]
    odd = [keras.Input((3,), name="unit price (€)"), keras.Input((2,), name="Größe")]
    joined, apart = joined_and_apart()
    for model, x, y, said in [
        (joined, [one, two], one, "takes inputs_0 (float32, n × 3), inputs_1 (float32, n × 2)"),
        (apart, {"one": one, "two": two}, one, "takes one (float32, n × 3), two (float32"),
        (keras.Model(two_inputs, outputs), [one, two], [one[:, :1], two],
         "alpha (float32, n × 2), zeta (float32, n × 3) → y0 (float32, n × 1), y1"),
        (keras.Model(unnamed, keras.layers.Concatenate()(unnamed)), [one, two], np.ones((4, 5)),
         "takes keras_tensor (float32, n × 3), keras_tensor_1 (float32, n × 2)"),
        (keras.Model(odd, keras.layers.Concatenate()(odd)),
         {"Größe": two, "unit price (€)": one}, np.ones((4, 5)), "takes Gr_e (float32, n × 2)"),
    ]:  # fmt: skip
        helpers.export(model, folder=tmp_path, examples=(x, y))
        told = capsys.readouterr().out
        assert said in told
        assert "4 held-out examples" in told
        assert ("versions can't be compared" in told) == (model in (joined, apart))


def test_a_file_that_lacks_its_own_code_says_which(tmp_path):
    class Unknown(keras.layers.Layer):
        def call(self, x):
            return 2 * x

    keras.Sequential([keras.Input((3,)), Unknown()]).save(tmp_path / "m.keras")
    with pytest.raises(SettingError, match=r"Could not locate class 'Unknown'\. If it holds"):
        helpers.export(tmp_path / "m.keras", folder=tmp_path)


def test_a_module_that_is_no_keras_model_is_called_as_it_says(tmp_path):
    class Twice(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32, "x")])
        def __call__(self, x):
            return 2 * x

    saved = tf.saved_model.load(helpers.export(Twice(), folder=tmp_path))
    np.testing.assert_array_equal(
        saved.signatures["serving_default"](x=tf.ones((1, 2)))["output_0"], [[2, 2]]
    )
    for truth in (pd.date_range("2020", periods=2), [pd.Timestamp("2020")] * 2, [1, 2j]):
        with pytest.raises(SettingError, match="examples: the truth is .* expected numbers, or"):
            helpers.export(Twice(), folder=tmp_path, examples=(np.ones((2, 2)), truth))

    def turned(wave: tf.TensorSpec([None], tf.complex64)):
        return tf.math.real(wave)

    with pytest.raises(SettingError, match='"wave" is complex64, n; .* no JSON for complex'):
        helpers.export(tf.Module(), folder=tmp_path, serve=turned)
    with pytest.raises(SettingError, match="takes no named argument"):
        helpers.export(tf.Module(), folder=tmp_path)


def test_importing_helpers_does_not_import_tensorflow():
    code = (
        "import sys, helpers; from helpers.inputs import schema; from helpers import plots; "
        "print('tensorflow' in sys.modules)"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"
