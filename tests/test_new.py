"""A project from a CSV: what it refuses, what it writes, and that it runs at once."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

from helpers.inputs import picture_folders, series, texts
from helpers.new import project as new
from helpers.new.__main__ import main
from helpers.notebooks import read_parameters


def customers() -> pd.DataFrame:
    """Who leaves: two numbers, a text; a yes or no, an amount and a class to predict."""
    draw, n = np.random.default_rng(1), 200
    frame = pd.DataFrame({"months": draw.integers(1, 60, n), "plan": draw.choice(["a", "b"], n)})
    frame["charge"] = draw.uniform(5, 90, n).round(2)
    frame["churned"] = np.where(frame["charge"] - frame["months"] > 20, "yes", "no")
    frame["paid"] = (frame["charge"] * frame["months"] + draw.normal(0, 9, n)).round(2)
    frame["tier"] = pd.cut(frame["charge"], 3, labels=["low", "middle", "high"]).astype(str)
    return frame


@pytest.fixture
def source(tmp_path) -> Path:
    customers().to_csv(tmp_path / "customers.csv", index=False)
    return tmp_path / "customers.csv"


def make(folder: Path, target: str, *more: str, **variables: str) -> str:
    """What `make …` prints in the project, in this environment; it must succeed."""
    command = ["make", "-C", str(folder), target, f"VENV={sys.prefix}", *more]
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_CLOUD_DIR"}
    environment |= variables
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_new_project_is_filled_in(source, tmp_path, capsys):
    folder = new.new("churn", str(source), "churned", folder=tmp_path / "made")
    said = capsys.readouterr().out
    assert "churned: binary from 5 columns" in said
    assert "months" in said
    for name in new.NAMES:
        form = read_parameters(folder / "notebooks" / name)
        wanted = {"DATA": "data/customers.csv", "TARGET": "churned", "TASK": "binary"}
        wanted["MODEL_NAME"] = "churn"
        assert {key: form[key] for key in form.keys() & wanted} == {
            key: wanted[key] for key in form.keys() & wanted
        }
        assert "colab.research" not in nbformat.writes(
            nbformat.read(folder / "notebooks" / name, 4)
        )
    files = {path.name: path.read_text() for path in folder.rglob("*") if path.is_file()}
    assert "make test" in files["notebooks.yml"]
    assert "@v0.1.0" in files["requirements.txt"]
    assert "`churned` (binary) from `data/customers.csv`" in files["README.md"]
    assert not [name for name, text in files.items() if "<name>" in text or "<TASK>" in text]


@pytest.mark.soak
@pytest.mark.parametrize("target", ["churned", "paid", "tier"])
def test_every_task_runs_and_serves(source, tmp_path, target):
    folder = new.new("customers", str(source), target, folder=tmp_path)
    try:
        assert "04_predict" in make(folder, "run", "EPOCHS=3")
        assert (folder / ".local-cloud" / "emulator.json").exists()  # the endpoint stays
        make(folder, "test")
    finally:
        make(folder, "stop")


@pytest.mark.parametrize(
    ("name", "target", "content", "said"),
    [
        ("../up", "churned", None, 'NAME="../up" is not usable'),
        ("a b", "churned", None, "is not usable"),
        ("taken", "churned", None, "exists, and nothing is overwritten"),
        ("good", "churn", None, 'TARGET="churn" is not a column. Did you mean "churned"?'),
        ("good", "", None, "name the one to predict"),
        ("good", "churned", b"PK\x03\x04\0\0", "is a binary file"),
        ("good", "churned", b"", "is empty"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(
    source, tmp_path, capsys, name, target, content, said
):
    (tmp_path / "taken").mkdir()
    if content is not None:
        source.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    assert main([name, "--data", str(source), "--target", target, "--folder", str(tmp_path)]) == 2
    assert said in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def prepared(kind: str, folder: Path) -> Path:
    """Data of a kind, small."""
    if kind == "image":
        for digit in Path(picture_folders.write_digits(folder / "all")).iterdir():
            for file in sorted(digit.iterdir())[: 8 if digit.name in "03" else 0]:
                (folder / "ink" / digit.name).mkdir(parents=True, exist_ok=True)
                file.rename(folder / "ink" / digit.name / file.name)
        return folder / "ink"
    made = texts.reviews()[:80] if kind == "text" else series.weekly_sales()[["sales"]]
    made.to_csv(folder / "own.csv", index=kind == "series")
    return folder / "own.csv"


@pytest.mark.parametrize("kind", ["image", "text", "series"])
def test_projects_of_other_kinds(tmp_path, capsys, kind):
    source = prepared(kind, tmp_path)
    arguments = ["mine", "--data", str(source), "--kind", kind, "--folder", str(tmp_path / "made")]
    assert main(arguments) == 0
    assert "Made " in capsys.readouterr().out
    folder = tmp_path / "made" / "mine"
    first = read_parameters(folder / "notebooks" / "01_prototype.ipynb")
    assert first["DATA"] == f"data/{source.name}"
    assert {"image": "BACKBONE", "text": "WORDS", "series": "HORIZON"}[kind] in first
    assert (folder / first["DATA"]).exists()
    assert read_parameters(folder / "notebooks" / "02_train.ipynb")["DATA"] == first["DATA"]
    written = (folder / "notebooks" / "01_prototype.ipynb").read_text()
    assert "more/image.ipynb" not in written.replace("`more/image.ipynb`", "")
    assert f"from `data/{source.name}`" in (folder / "README.md").read_text()


@pytest.mark.soak
@pytest.mark.parametrize("kind", ["image", "text", "series"])
def test_projects_of_other_kinds_pass_their_test(tmp_path, kind):
    folder = new.new("mine", str(prepared(kind, tmp_path)), folder=tmp_path / "made", kind=kind)
    assert "04_predict" in make(folder, "test")


def test_data_of_another_kind_is_refused(source, tmp_path, capsys):
    arguments = ["mine", "--data", str(source), "--folder", str(tmp_path)]
    assert main([*arguments, "--kind", "picture"]) == 2
    assert 'KIND="picture" is unknown' in capsys.readouterr().err
    assert main([*arguments, "--kind", "image"]) == 2
    assert "is one file, and no zip" in capsys.readouterr().err
    assert main([*arguments, "--kind", "series"]) == 2
    assert "has no times" in capsys.readouterr().err
    assert not (tmp_path / "mine").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    assert main(["good", "--data", "gone.csv", "--target", "a", "--folder", str(tmp_path)]) == 2
    assert 'DATA="gone.csv": no such file' in capsys.readouterr().err


def test_a_large_file_is_sampled_and_not_copied(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(new, "SAMPLE_BYTES", 2_000)
    monkeypatch.setattr(new, "COPIED_BYTES", 3_000)
    source = tmp_path / "large.csv"
    customers().to_csv(source, index=False)
    folder = new.new("large", str(source), "churned", folder=tmp_path)
    said = capsys.readouterr().out
    assert "Looked at the first" in said
    assert f"Not copied, because it is large: {source}" in said
    assert read_parameters(folder / "notebooks" / "01_prototype.ipynb")["DATA"] == str(source)
    assert not (folder / "data").exists()


def test_many_columns_are_counted_and_not_listed(tmp_path, capsys):
    draw = np.random.default_rng(2)
    frame = pd.DataFrame(draw.normal(size=(30, 600)).round(2)).add_prefix("column_")
    frame.to_csv(tmp_path / "wide.csv", index=False)
    new.new("wide", str(tmp_path / "wide.csv"), "column_7", folder=tmp_path)
    said = capsys.readouterr().out
    assert "from 599 columns" in said
    assert "599 columns train slowly" in said
    assert len(said.splitlines()) < 40
