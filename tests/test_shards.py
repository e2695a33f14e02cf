"""Tables in many files: a sample to look at, every row once an epoch, memory that stays flat."""

import gzip
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import helpers
from helpers import data
from helpers.errors import DataError, NotFoundError


def frame(rows: int, *, seed: int = 0) -> pd.DataFrame:
    """Rows with a number of their own, gaps, a text, a date, an amount, and a target."""
    draw = np.random.default_rng(seed)
    made = pd.DataFrame({
        "own": np.arange(rows) + 0.5, "gaps": draw.normal(size=rows),
        "word": draw.choice(["red", "gr,een", "blue", None], rows),
        "day": pd.Timestamp("2024-01-31") + pd.to_timedelta(draw.integers(0, 900, rows), "D"),
        "price": draw.integers(1000, 5000, rows),
    })  # fmt: skip
    made.loc[draw.random(rows) < 0.1, "gaps"] = None
    made["price"] = made["price"].map("${:,}".format)
    made["earned"] = made["own"] * 2 + (made["word"] == "red")
    return made


@pytest.fixture
def parts(tmp_path) -> Path:
    """Three files with 1,500 rows in all."""
    whole = frame(1500)
    for i, rows in enumerate([slice(0, 200), slice(200, 1000), slice(1000, None)]):
        whole.iloc[rows].to_csv(tmp_path / f"part-{i}.csv", index=False)
    return tmp_path


def learned(table, rows, **more) -> tuple[pd.DataFrame, list[int]]:
    """What an epoch of batches of 64 holds, in its order, and the sizes of its batches."""
    steps = -(-len(rows) // 64)
    batches = helpers.batches(table, rows, batch_size=64, seed=3, **more).take(steps)
    found = [(columns | {"label": label}) for columns, label in batches.as_numpy_iterator()]
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return pd.DataFrame(whole), [len(part["label"]) for part in found]


def test_every_row_that_does_not_test_once_an_epoch(parts, monkeypatch):
    monkeypatch.setattr("helpers.inputs.shards.PART_BYTES", 20_000)  # more than one file of rows
    table = data.load(str(parts / "part-*.csv"))
    rows = data.rows(table)
    assert len(rows.files) > 1
    assert table.target == "earned"
    assert len(table.train) + len(table.test) == 1500
    assert 60 < len(table.test) < 250
    epoch, sizes = learned(table, rows)
    assert sizes == [64] * (len(rows) // 64) + [len(rows) % 64]
    whole = pd.concat([table.train, table.test])
    expected = whole[~whole["own"].isin(table.test["own"])].sort_values("own")
    epoch = epoch.sort_values("own")
    assert len(expected) == len(rows) == len(epoch)
    for name in table.features:
        given = expected[name]
        if table.kinds[name] == "text":
            assert list(epoch[name].map(bytes.decode)) == list(given.fillna(""))
        else:
            np.testing.assert_allclose(epoch[name], given, rtol=1e-6)
    np.testing.assert_allclose(epoch["label"], expected["earned"], rtol=1e-6)
    assert {"day_year", "day_month", "price", "word"} <= set(table.features)


def test_large_codes_and_labels_keep_their_digits(tmp_path):
    draw = np.random.default_rng(0)
    for part in range(2):
        codes = draw.integers(0, 3, 200)
        made = pd.DataFrame({"user_id": 10**17 + codes, "x": draw.normal(size=200)})
        made["word"] = np.where(codes == 1, "NA", "red")
        made["label"] = 2**60 + codes
        made.to_csv(tmp_path / f"part-{part}.csv", index=False)
    table = data.load(str(tmp_path / "part-*.csv"), task="multiclass")
    rows = data.rows(table)
    assert rows.levels == {
        "user_id": tuple(str(10**17 + n) for n in range(3)),
        "word": ("", "red"),
        "label": tuple(str(2**60 + n) for n in range(3)),
    }
    content = np.concatenate([np.fromfile(file, "float32") for file in rows.files]).reshape(-1, 4)
    assert set(content[:, 0]) == {0, 1, 2}
    np.testing.assert_array_equal(content[:, 0], content[:, 3])
    np.testing.assert_array_equal(content[:, 2] == 0, content[:, 0] == 1)


def test_each_epoch_has_an_order_of_its_own_that_can_be_gone_on_with(parts):
    table = data.load(str(parts / "part-*.csv"))
    rows = data.rows(table)
    first, _ = learned(table, rows)
    second, _ = learned(table, rows, start_epoch=1)
    assert not first["own"].equals(second["own"])
    assert sorted(first["own"]) == sorted(second["own"])
    late, _ = learned(table, rows, start_epoch=1, start_step=2)
    assert list(late["own"][:64]) == list(second["own"][128:192])
    again = data.rows(data.load(str(parts / "part-*.csv")))
    assert learned(table, again)[0].equals(first)


def test_the_sample_is_taken_from_all_over(parts, monkeypatch):
    monkeypatch.setattr("helpers.inputs.shards.SAMPLE_BYTES", 30_000)
    monkeypatch.setattr("helpers.inputs.shards.PIECES", 10)
    table = data.load(str(parts / "part-*.csv"))
    seen = pd.concat([table.train, table.test])["own"]
    assert 300 < len(seen) < 1200
    assert seen.is_unique
    assert (seen.min() < 150) & (seen.max() > 1350)
    rows = data.rows(table)
    epoch, _ = learned(table, rows)
    assert not set(epoch["own"]) & set(table.test["own"].astype("float32"))
    assert set(table.train["own"].astype("float32")) <= set(epoch["own"])
    assert len(rows) > 1200


def test_classes_and_values_that_do_not_fit(tmp_path, capsys, monkeypatch):
    draw = np.random.default_rng(0)
    for i in range(2):
        made = pd.DataFrame({"x": draw.normal(size=300), "y": draw.choice(["no", "yes"], 300)})
        made.to_csv(tmp_path / f"{i}.csv", index=False)
    monkeypatch.setattr("helpers.inputs.shards.SAMPLE_BYTES", 4_000)
    monkeypatch.setattr("helpers.inputs.shards.PIECES", 4)
    (tmp_path / "2.csv").write_text("x,y\n1,yes\n2,maybe\n" + "3,no\n" * 20 + "a,no\nb,no\n" * 5)
    table = data.load(str(tmp_path / "*.csv"))
    assert table.classes == ("no", "yes")
    rows = data.rows(table)
    assert "11 values are not of their column's kind" in capsys.readouterr().out
    epoch, _ = learned(table, rows)
    assert set(epoch["label"]) == {0, 1}


def test_codes_and_names_of_many_files(tmp_path):
    """Codes keep their zeros in every part, also in one where none has any; names stay."""
    for i in range(3):
        first = [0, 5][i > 0]
        made = pd.DataFrame({"zip (CH)": [f"{first}{k % 9}" for k in range(400)], "store_id": 7})
        made["store_id"] += np.arange(400) % 5
        made["a/b €"] = np.arange(400) + 400 * i
        made["y"] = np.arange(400) % 11 + 0.5
        made.to_csv(tmp_path / f"{i}.csv", index=False)
    table = data.load(str(tmp_path / "*.csv"))
    assert table.kinds == {"zip (CH)": "text", "store_id": "text"}
    rows = data.rows(table)
    assert len(rows) + len(table.test) == 1200
    assert set(rows.levels["zip (CH)"]) >= {"00", "08", "50", "58"}
    width = len(rows.columns)
    values = np.concatenate([np.fromfile(f, "float32").reshape(-1, width) for f in rows.files])
    for place, name in enumerate(rows.columns[:2]):
        assert values[:, place].max() < len(rows.levels[name])  # none is unknown


def test_from_the_bucket(parts, session):
    helpers.storage.upload_folder(session, parts, "gs://local-bucket/tables")
    table = data.load("gs://local-bucket/tables/part-*.csv", session=session)
    rows = data.rows(table, session=session)
    assert len(rows) + len(table.test) == 1500
    assert len(learned(table, rows)[0]) == len(rows)


def test_its_files_go_with_it(parts):
    rows = data.rows(data.load(str(parts / "part-*.csv")))
    files = [Path(file) for file in rows.files]
    assert all(file.stat().st_size for file in files)
    del rows
    assert not any(file.parent.exists() for file in files)


def test_what_can_not_be_read_says_why(parts, tmp_path_factory, monkeypatch):
    beside = tmp_path_factory.mktemp("beside")
    monkeypatch.setattr("tempfile.tempdir", str(beside))
    with pytest.raises(NotFoundError, match="matches no file"):
        data.load(str(parts / "prat-*.csv"))
    (parts / "part-3.csv").write_text("own,word\n1,red\n")
    table = data.load(str(parts / "part-[012]*.csv"))
    with pytest.raises(DataError, match=r"part-3.csv lacks the columns"):
        data.rows(data.load(str(parts / "part-*.csv"), target=table.target))
    assert not list(beside.iterdir())  # the rows read before are gone, too
    for file in parts.glob("*.csv"):
        file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(DataError, match="compressed"):
        data.load(str(parts / "part-*.csv"))


CAPPED = """
import resource, sys
import keras, psutil
import helpers
from helpers import data

helpers.batches, helpers.encode  # all that is imported counts before the cap
table = data.load(sys.argv[1], target="y")
keras.Sequential([keras.layers.Dense(1)]).fit  # noqa: B018
inputs, x = helpers.encode(table)
model = keras.Model(inputs, helpers.decode(table, keras.layers.Dense(8)(x)))
model.compile("adam", "mse", steps_per_execution=16)
model.fit(helpers.batches(table, table.train, batch_size=4096, seed=0), steps_per_epoch=16,
          verbose=0)
before = psutil.Process().memory_info()
cap = int(sys.argv[2])
used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + cap, used + cap))
rows = data.rows(table)
steps = len(rows) // 4096 // 16 * 16
model.fit(helpers.batches(table, rows, batch_size=4096, seed=0), steps_per_epoch=steps, verbose=0)
print(len(rows), psutil.Process().memory_info().rss - before.rss)
"""


@pytest.mark.soak
def test_memory_is_capped(tmp_path):
    """Ten times the cap, were it all in memory as a table."""
    cap = 200 * 2**20
    block = pd.DataFrame(np.random.default_rng(0).normal(size=(50_000, 9)).round(3))
    block.columns = [*"abcdefgh", "y"]
    block.to_csv(tmp_path / "block", index=False)
    count = 10 * cap // (block.size * 8) + 1
    for i in range(count):
        (tmp_path / f"part-{i:03d}.csv").hardlink_to(tmp_path / "block")
    done = subprocess.run(
        [sys.executable, "-c", CAPPED, str(tmp_path / "part-*.csv"), str(cap)],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found, grown = map(int, done.stdout.split()[-2:])
    assert 0.85 * count * 50_000 < found < 0.95 * count * 50_000
    assert grown < cap


def test_a_job_gets_the_files_too(parts, session):
    parameters = {"DATA": str(parts / "part-*.csv"), "EPOCHS": 1}
    job = helpers.train(session, "01_prototype.ipynb", parameters=parameters)
    assert job.metrics["rows_train"] + job.metrics["rows_test"] == 1500
