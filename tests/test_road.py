"""The road through papermill, notebook by notebook and in one kernel, on an empty local cloud."""

import json
import subprocess
import sys
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import papermill
import pytest

import helpers
from tests.colab import alarming, raw, undrawable
from tests.kernels import ByFiles

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def run(name: str, folder: Path, **parameters) -> nbformat.NotebookNode:
    source, made = NOTEBOOKS / f"{name}.ipynb", folder / f"{name}.ipynb"
    done = papermill.execute_notebook(
        source, made, parameters, cwd=folder, progress_bar=False, kernel_manager_class=ByFiles
    )
    assert undrawable(done) == []
    assert alarming(done) == []
    assert raw(done) == []
    return done


def shown(notebook) -> str:
    """All that the cells printed and displayed."""
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    return "\n".join(o.get("text") or o.get("data", {}).get("text/plain", "") for o in outputs)


def shops() -> pd.DataFrame:
    """Takings of shops: texts, gaps, dates, amounts, a row number."""
    draw = np.random.default_rng(8)
    frame = pd.DataFrame({"shop_id": range(90, 0, -1), "area": draw.uniform(20, 200, 90).round(4)})
    frame["town"] = draw.choice(["Bern", "Basel", "Zürich"], 90)
    frame["opened"] = pd.date_range("2019-03-01", periods=90, freq="11D").strftime("%d.%m.%Y")
    takings = 900 * frame["area"] + 20_000 * (frame["town"] == "Basel")
    frame["takings"] = [f"${value:,.2f}" for value in takings]
    frame.loc[::8, "area"] = np.nan
    frame.loc[::9, "town"] = None
    return frame


@pytest.fixture(scope="module")
def used_cloud(tmp_path_factory):
    """A local cloud for several drives, each of which removes what bills by the hour."""
    folder = tmp_path_factory.mktemp("used") / "cloud"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_CLOUD_DIR", str(folder))
        yield folder
    command = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(folder)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)


@pytest.mark.long
def test_an_own_file_with_texts_and_gaps(used_cloud, tmp_path):
    """The whole road in one kernel, then 03 with a candidate and 04 with new rows, by parameters
    only; rows of one's own stay out of every report."""
    shops().to_csv(tmp_path / "shops.csv", index=False)
    own = {"DATA": "shops.csv", "TARGET": "town", "EPOCHS": 2, "SEED": 1}
    trained = shown(run("quickstart", tmp_path, OUTPUT_DIR="out", MODEL_NAME="town", **own))
    assert "shop_id is left out: it numbers the rows" in trained
    assert "10 rows without town are left out" in trained
    assert "keep the machine on" in trained
    assert "may be closed" not in trained
    assert "kB) to bucket local-bucket in us-central1" in trained
    assert "aliases=('default', 'candidate', 'v1')" in trained
    assert "probability_Basel" in trained
    assert "Nothing that bills by the hour is left." in trained
    session = helpers.connect("local")
    helpers.deploy(session, helpers.find_model(session, "town", "candidate"))
    compared = shown(
        run("03_deploy", tmp_path, VERSION=candidate(session, tmp_path), MODEL_NAME="town")
    )
    assert "Promoted: 2." in compared
    assert "Address: http://127.0.0.1:" in compared
    assert helpers.find_endpoint(session, "town").traffic == {"1": 0, "2": 100}
    shops().drop(columns="town").to_csv(tmp_path / "new.csv", index=False)
    asked = shown(run("04_predict", tmp_path, ROWS="new.csv", MODEL_NAME="town"))
    assert "Left aside, as the model does not take them: shop_id" in asked
    scored = pd.read_csv(tmp_path / "new-predictions.csv")
    assert scored["shop_id"].tolist() == shops()["shop_id"].tolist()
    assert scored["town"].isin(["Bern", "Basel", "Zürich"]).all()
    assert "The endpoint answers as the trained model did." in asked
    assert "Nothing that bills by the hour is left." in asked
    assert helpers.costs(session)["what"].tolist() == ["bucket", "images"]
    job = helpers.find_job(session)
    ran = helpers.storage.read_bytes(session, f"{job.base_uri}/01_prototype.ipynb").decode()
    ran = nbformat.reads(ran, 4)
    assert alarming(ran) + raw(ran) == []
    seen = trained + compared + asked
    seen += helpers.storage.read_bytes(session, job.report_uri).decode()
    for area in shops()["area"].dropna().head(20):
        assert str(area) not in seen


def candidate(session, folder: Path) -> str:
    """Registers a copy of the model as its next version, as another job of the same would be."""
    made = helpers.find_model(session, "town").artifact_uri.removesuffix("model/")
    helpers.storage.download_folder(session, made, folder / "copy")
    uri = helpers.storage.upload_folder(session, folder / "copy", "gs://local-bucket/jobs/again")
    return helpers.register(session, f"{uri}model", name="town").version


def test_answers_of_several_versions_are_not_held_against_one(session, artifact, tmp_path):
    """The version with the most traffic claims another error than the endpoint's answers have."""
    first = helpers.register(session, artifact("numbers"), name="split")
    helpers.deploy(session, first)
    uri = artifact("numbers")
    metrics = uri.removesuffix("model/").rstrip("/").removesuffix("/model") + "/metrics.json"
    claimed = json.loads(helpers.storage.read_bytes(session, metrics))
    claimed["metrics"] = {name: value + 1 for name, value in claimed["metrics"].items()}
    helpers.storage.write_bytes(session, json.dumps(claimed).encode(), metrics)
    second = helpers.register(session, uri, name="split")
    helpers.deploy(session, second, traffic_percent=60)
    said = shown(run("04_predict", tmp_path, MODEL_NAME="split"))
    assert "Several versions share the traffic (version 1: 40 %, version 2: 60 %)" in said


@pytest.mark.soak
def test_classes(used_cloud, tmp_path):
    """Many classes through 04, which makes the endpoint that is missing."""
    run("02_train", tmp_path, DATA="wine", MODEL_NAME="cultivar", EPOCHS=5)
    said = shown(run("04_predict", tmp_path, MODEL_NAME="cultivar"))
    assert "Deploying cultivar version 1" in said
    assert "probability_class_0" in said
    assert "The endpoint answers as the trained model did." in said


@pytest.mark.soak
def test_a_number_of_ones_own(used_cloud, tmp_path):
    """02 on another machine, 03 for a model that is alone, 04 with new rows."""
    shops().to_csv(tmp_path / "shops.csv", index=False)
    own = {"MODEL_NAME": "takings"}
    trained = shown(run("02_train", tmp_path, DATA="shops.csv", EPOCHS=2, SEED=1, **own))
    assert "takings version 1: default, candidate, v1" in trained
    deployed = shown(run("03_deploy", tmp_path, VERSION="candidate", **own))
    assert "Version 1 is alone: it has all the traffic." in deployed
    shops().drop(columns="takings").to_csv(tmp_path / "new.csv", index=False)
    assert "takings: $" in shown(run("04_predict", tmp_path, ROWS="new.csv", **own))
    assert pd.read_csv(tmp_path / "new-predictions.csv")["takings"].notna().all()


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("02_train", {"TARGET": "earnings"}, 'Did you mean "total_earnings"'),
        *(
            pytest.param(name, parameters, said, marks=pytest.mark.soak)
            for name, parameters, said in [
                ("02_train", {"DATA": "gone.csv"}, 'DATA="gone.csv": no such file'),
                ("02_train", {"NOTEBOOK": "01_prototyp.ipynb"}, 'mean "01_prototype.ipynb"'),
                ("02_train", {"EPOCHS": "ten"}, "expected a whole number"),
                ("02_train", {"CLOUD": "gogle"}, 'Did you mean "google"'),
                ("03_deploy", {"CLOUD": "google"}, "needs a project"),
            ]
        ),
    ],
)
def test_bad_input_ends_before_anything_is_made(empty_cloud, tmp_path, name, parameters, said):
    with pytest.raises(papermill.PapermillExecutionError, match=said):
        run(name, tmp_path, **parameters)
    session = helpers.connect("local")
    assert helpers.storage.list_uris(session, "gs://local-bucket/") == []
    assert helpers.costs(session).empty


@pytest.mark.long
@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.soak) for seed in (1, 2))]
)
def test_the_prototype_is_near_the_noise(tmp_path, seed):
    run("01_prototype", tmp_path, SEED=seed, OUTPUT_DIR="out")
    report = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert report["metrics"]["mae"] <= 1.15 * report["noise_mae"]
    assert report["metrics"]["mae"] < report["baselines"]["gradient_boosting"]["mae"]
