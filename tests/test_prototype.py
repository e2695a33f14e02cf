"""01_prototype.ipynb as papermill runs it: on a small file with text, gaps and three classes."""

import json
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

from tests.kernels import ByFiles

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_prototype.ipynb"


def run(tmp_path, **parameters) -> nbformat.NotebookNode:
    parameters |= {"OUTPUT_DIR": str(tmp_path / "out")}
    return papermill.execute_notebook(
        NOTEBOOK, tmp_path / "done.ipynb", parameters, cwd=tmp_path, progress_bar=False,
        kernel_manager_class=ByFiles,
    )  # fmt: skip


def shown(notebook) -> str:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return json.dumps([[o.get("text"), o.get("data", {}).get("text/html")] for o in outputs])


@pytest.fixture
def flowers(tmp_path) -> Path:
    random = np.random.default_rng(0)
    kind = random.integers(0, 3, 120)
    frame = pd.DataFrame(
        {
            "height": kind * 2 + random.normal(5, 1, 120).round(6),
            "color": np.array(["red", "blue", "white"])[(kind + random.integers(0, 2, 120)) % 3],
            "kind": np.array(["rose", "sky flower", "lily"])[kind],
        }
    )
    frame.loc[::9, "height"] = np.nan
    frame.loc[::7, "color"] = None
    frame.to_csv(tmp_path / "flowers.csv", index=False)
    return tmp_path / "flowers.csv"


def test_a_file_with_text_and_gaps_becomes_a_saved_model(flowers, tmp_path):
    notebook = run(tmp_path, DATA=str(flowers), TARGET="kind", EPOCHS=1)
    out = tmp_path / "out"
    assert (out / "model" / "1" / "saved_model.pb").is_file()
    assert any((out / "logs").rglob("events.out.tfevents.*"))
    report = json.loads((out / "metrics.json").read_text())
    assert report["task"] == "multiclass"
    assert report["epochs"] == 1
    assert report["rows_train"] + report["rows_test"] == 120
    assert set(report["baselines"]) == {"trivial", "linear", "gradient_boosting"}
    assert set(report["metrics"]) == set(report["baselines"]["linear"])
    instance = json.loads((out / "model" / "1" / "assets.extra" / "instance.yaml").read_text())
    assert instance["required"] == ["height", "color"]
    first = pd.read_csv(flowers)["height"].dropna().iloc[0]
    assert str(first) not in shown(notebook)  # rows of one's own data stay out of the report


def test_no_epochs_is_refused_before_anything_runs(tmp_path):
    with pytest.raises(papermill.PapermillExecutionError, match="EPOCHS=0"):
        run(tmp_path, EPOCHS=0)
    assert not (tmp_path / "out").exists()
