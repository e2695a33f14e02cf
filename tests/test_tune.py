"""Tuning with notebooks small enough to run in a second or two; tune.ipynb as papermill runs it."""

import json
import math
from pathlib import Path

import nbformat
import papermill
import pytest

import helpers
from helpers import plots, storage
from helpers.errors import JobError, SettingError
from helpers.inside import main as container_main
from tests.colab import alarming, raw
from tests.kernels import ByFiles
from tests.test_train import notebook

ROOT = Path(__file__).parents[1]
# The loss is least at EPOCHS = 5; the third trial has a cell that raises.
SEARCHED = """\
import json, os, pathlib
if os.environ["CLOUD_ML_TRIAL_ID"] == "3":
    raise ValueError("of two minds")
assert type(EPOCHS) is int and OUTPUT_DIR
metrics = {"loss": (EPOCHS - 5) ** 2 + 0.5, "lost": 1}
pathlib.Path(OUTPUT_DIR, "metrics.json").write_text(json.dumps({"metrics": metrics, "epochs": 7}))
"""
SOUND = {"search": {"EPOCHS": (1, 9)}, "metric": "loss"}


@pytest.fixture
def searched(tmp_path) -> str:
    return str(notebook(tmp_path, "searched.ipynb", SEARCHED))


def test_a_search_gives_its_trials_and_the_best_values(session, searched, capsys):
    found = helpers.tune(session, searched, trials=4, labels={"phase": "test"}, **SOUND)
    said = capsys.readouterr().out
    assert "4 of EPOCHS, 2 at once; minimize loss" in said
    assert "at most 4 h of machine time in all" in said
    assert f"job {found.number} SUCCEEDED" in said
    assert found.state == "SUCCEEDED"
    frame = found.trials
    assert sorted(frame.index) == [1, 2, 3, 4]
    assert frame["loss"].dropna().is_monotonic_increasing  # the best first
    assert math.isnan(frame.loc[3, "loss"])
    assert (frame["state"] == "INFEASIBLE").to_dict() == {n: n == 3 for n in frame.index}
    assert "of two minds" in frame.loc[3, "reason"]
    good = frame.drop(3)
    assert ((good["EPOCHS"] - 5) ** 2 + 0.5 == good["loss"]).all()
    assert found.best == {"EPOCHS": frame["EPOCHS"].iloc[0]}
    assert type(found.best["EPOCHS"]) is int
    best = f"{found.base_uri}/{frame.index[0]}"
    assert json.loads(storage.read_bytes(session, f"{best}/metrics.json"))["epochs"] == 7
    assert storage.read_bytes(session, f"{best}/searched.ipynb")
    measured = found.resource()["trials"][0]["finalMeasurement"]
    assert measured["stepCount"] == "7"
    figure = plots.trials(found)
    assert figure.get_suptitle().startswith(f"Best: loss {plots.money(frame['loss'].iloc[0])}")
    assert figure.axes[0].get_xlabel() == "EPOCHS"


def test_a_metric_the_notebook_never_reports_ends_it_after_the_first_trial(session, searched):
    with pytest.raises(JobError, match='no metric "los".*Did you mean "los[st]"') as caught:
        helpers.tune(session, searched, trials=50, parallel=1, search=SOUND["search"], metric="los")
    job = caught.value.job.resource()
    assert len(job["trials"]) <= 2
    assert job["state"] in ("JOB_STATE_CANCELLING", "JOB_STATE_CANCELLED")


def test_a_notebook_that_measures_nothing_is_told_so(session, tmp_path):
    path = notebook(tmp_path, "silent.ipynb", "print('nothing')")
    with pytest.raises(JobError, match='reports no metric "loss"'):
        helpers.tune(session, str(path), trials=50, parallel=1, **SOUND)


def test_a_notebook_that_always_fails_says_why(session, tmp_path):
    path = notebook(tmp_path, "broken.ipynb", "raise ValueError('no such column')")
    with pytest.raises(JobError, match=r"2 trials failed.*broken.ipynb raised ValueError: no such"):
        helpers.tune(session, str(path), trials=3, parallel=1, **SOUND)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {"EPOCHS": (9, 1)}}, r'search\["EPOCHS"\] is \(9, 1\).*low below high'),
        ({"search": {"EPOCHS": (5, 5)}}, "low below high"),
        ({"search": {"EPOCHS": (0, 5, "log")}}, "low above 0"),
        ({"search": {"EPOCHS": (1, 5, "cubic")}}, "cubic"),
        ({"search": {"EPOCHS": (1,)}}, "low below high"),
        ({"search": {"EPOCHS": []}}, "list of values"),
        ({"search": {"EPOCHS": 5}}, "list of values"),
        ({"search": {"EPOCHS": [1, "two"]}}, "whole number"),
        ({"search": {"OUTPUT_DIR": ("a", "b")}}, "list of values"),
        ({"search": {"EPOCH": (1, 5)}}, 'Did you mean "EPOCHS"'),
        ({"search": {}}, "0 parameters"),
        ({"trials": 0}, "trials=0"),
        ({"parallel": -1}, "parallel=-1"),
        ({"goal": "minimise"}, 'goal="minimise"'),
        ({"metric": "my loss"}, 'metric="my loss"'),
        ({"parameters": {"EPOCH": 1}}, 'Did you mean "EPOCHS"'),
        ({"timeout_s": 3}, "timeout_s=3"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(session, searched, change, said):
    before = storage.list_uris(session, f"gs://{session.bucket}/jobs/")
    with pytest.raises(SettingError, match=said):
        helpers.tune(session, searched, **SOUND | change)
    assert storage.list_uris(session, f"gs://{session.bucket}/jobs/") == before


def test_every_kind_of_search_reaches_the_notebook(session, tmp_path):
    cell = """\
import json, pathlib
assert RATE in (0.25, 1.0) and type(RATE) is float and KIND in ("relu", "32.0") and FLAG is True
pathlib.Path(OUTPUT_DIR, "metrics.json").write_text(json.dumps({"score": RATE}))
"""
    path = notebook(tmp_path, "kinds.ipynb", cell)
    made = nbformat.read(path, as_version=4)
    made.cells[0].source = 'RATE = 0.5\nKIND = "relu"\nFLAG = False\nOUTPUT_DIR = ""'
    nbformat.write(made, path)
    search = {"RATE": [1, 0.25], "KIND": ["relu", "32.0"], "FLAG": [True]}
    asked = {"search": search, "metric": "score", "goal": "maximize"}
    found = helpers.tune(session, str(path), trials=2, **asked)
    assert found.trials["state"].eq("SUCCEEDED").all()
    assert found.trials["score"].is_monotonic_decreasing


def test_a_container_refuses_arguments_it_does_not_know(capsys):
    with pytest.raises(SystemExit) as caught:
        container_main.main(["--notebook=gs://b/n", "--parameters=gs://b/p", "EPOCHS", "--epochs"])
    assert caught.value.code == container_main.UNFIT
    assert "expected --NAME=VALUE" in capsys.readouterr().err


@pytest.mark.long
def test_the_notebook_tunes_trains_and_registers(empty_cloud, tmp_path):
    """Headless, as small as it gets."""
    small = {"TRIALS": 1, "EPOCHS": 1, "FULL_EPOCHS": 1, "MODEL_NAME": "tuned"}
    made = papermill.execute_notebook(
        str(ROOT / "notebooks" / "more" / "tune.ipynb"), str(tmp_path / "out.ipynb"), small,
        cwd=str(tmp_path), progress_bar=False, kernel_manager_class=ByFiles,
    )  # fmt: skip
    said = "".join(o.get("text", "") for cell in made.cells for o in cell.get("outputs", []))
    assert "tuned version 1 has the best values: LEARNING_RATE 0.0" in said
    assert raw(made) == alarming(made) == []
    session = helpers.connect("local")
    model = helpers.find_model(session, "tuned", "candidate")
    asked = f"{model.artifact_uri.removesuffix('/model/')}/input/parameters.json"
    asked = json.loads(storage.read_bytes(session, asked))
    assert {"LEARNING_RATE", "BATCH_SIZE"} <= set(asked)
