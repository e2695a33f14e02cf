"""A project from a CSV: what it refuses, what it writes, and that it runs at once."""

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest

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


def make(folder: Path, target: str, *more: str) -> str:
    """What `make …` prints in the project, in this environment; it must succeed."""
    command = ["make", "-C", str(folder), target, f"VENV={sys.prefix}", *more]
    environment = {key: value for key, value in os.environ.items() if key != "LOCAL_CLOUD_DIR"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.long
def test_a_new_project_passes_its_test_at_once(source, tmp_path, capsys):
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
    said = make(folder, "test")
    assert "04_predict" in said
    assert 'tests="4" failures="0"' in (folder / "outputs" / "test" / "junit.xml").read_text()
    assert (folder / "outputs" / "test" / "index.html").is_file()
    assert not (folder / ".local-cloud").exists()


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
def test_bad_input_is_refused_and_leaves_nothing(source, tmp_path, name, target, content, said):
    (tmp_path / "taken").mkdir()
    if content is not None:
        source.write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    arguments = [name, "--data", str(source), "--target", target, "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "helpers.new", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(tmp_path.rglob("*")) == before


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
