"""What a job leaves: all of it is stored, and its model is where a model belongs."""

import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import helpers
from helpers import storage
from helpers.errors import JobError
from helpers.inputs import signature
from helpers.inside import left


def own(folder, *cells: str):
    """A notebook as Colab saves it: no cell has a tag."""
    made = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "P"}})
    made.cells = [new_code_cell(cell) for cell in cells]
    nbformat.write(made, folder / "own.ipynb")
    return str(folder / "own.ipynb")


def files(folder) -> dict:
    return left.collect(folder, folder / "nothing", {})


PLACES = ["model", "model/1", "model/7", "exported", "a/b/c", "", "checkpoints/best"]


@pytest.mark.parametrize("place", PLACES)
def test_a_saved_model_anywhere_becomes_the_jobs_model(trained, tmp_path, place):
    shutil.copytree(trained / "model" / "1", tmp_path / "out" / place, dirs_exist_ok=True)
    (tmp_path / "out" / "notes.txt").write_text("mine")
    found = left.with_model(files(tmp_path / "out"), tmp_path / "scratch", convert=True)
    assert {"model/1/saved_model.pb", "model/1/assets.extra/instance.yaml"} <= set(found.files)
    assert len([name for name in found.files if name.endswith("saved_model.pb")]) == 1
    assert found.said.startswith("Left: model (")
    assert "kind string, size float32 → price)" in found.said
    assert found.said.endswith(", notes.txt")
    assert "notes.txt" in found.files


def test_probabilities_are_counted_not_listed(trained, tmp_path):
    shutil.copytree(trained / "numbers" / "1", tmp_path / "out" / "model" / "1")
    found = left.with_model(files(tmp_path / "out"), tmp_path / "scratch", convert=True)
    assert found.said == "Left: model (size float32, two float32 → price, 3 probabilities)"


def test_a_model_in_its_place_counts_before_checkpoints_of_it(trained, tmp_path):
    for name in ("model/1", "checkpoints/epoch-1"):
        shutil.copytree(trained / "model" / "1", tmp_path / name)
    (tmp_path / "best.keras").write_bytes(b"weights of an epoch")
    found = left.with_model(files(tmp_path), tmp_path / "scratch", convert=True)
    assert found.said.startswith("Left: model (kind string")
    assert found.said.endswith("best.keras, checkpoints/")
    assert found.files["best.keras"] == tmp_path / "best.keras"


@pytest.mark.parametrize("names", [("a", "b"), ("model/1", "model/2"), ("x", "y", "z", "zz")])
def test_two_models_are_named_and_none_is_taken(trained, tmp_path, names):
    for name in names:
        shutil.copytree(trained / "model" / "1", tmp_path / name)
    found = left.with_model(files(tmp_path), tmp_path / "scratch", convert=True)
    assert found.said.startswith(f"Left {len(names)} models, ")
    assert all(name in found.said for name in names[:3])
    assert "helpers.export(model)" in found.said
    assert found.files == files(tmp_path)


def test_what_is_no_model_is_said(tmp_path):
    assert left.with_model({}, tmp_path, convert=True).said == (
        "Left no model: helpers.export(model) writes one"
    )
    (tmp_path / "model" / "1").mkdir(parents=True)
    (tmp_path / "model" / "1" / "saved_model.pb").write_bytes(b"no protobuf")
    found = left.with_model(files(tmp_path), tmp_path / "scratch", convert=True)
    assert found.said.startswith("Left no model to serve: model/1 is not a SavedModel")
    assert found.files == files(tmp_path)


def test_a_model_without_signatures_is_named(tmp_path):
    made = type(signature.message("SavedModel", b""))()
    made.meta_graphs.add().about.tags.append("serve")
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "saved_model.pb").write_bytes(made.SerializeToString())
    found = left.with_model(files(tmp_path), tmp_path / "scratch", convert=True)
    assert found.said.startswith("Left no model to serve: saved has no signatures")
    assert "helpers.export(model)" in found.said


def test_only_what_is_new_in_the_working_directory_is_left(tmp_path):
    work, output = tmp_path / "work", tmp_path / "output"
    for folder in (work, output):
        folder.mkdir()
    (work / "my_layers.py").write_text("code = 1")
    (work / "changed.csv").write_text("a")
    before = left.stamps(work)
    (work / "changed.csv").write_text("a,b")
    (work / "__pycache__").mkdir()
    (work / "__pycache__" / "my_layers.pyc").write_bytes(b"")
    (work / "new").mkdir()
    for folder, text in ((work / "new", "mine"), (output, "kept")):
        (folder / "metrics.json").write_text(text)
    (work / "metrics.json").write_text("not this one")
    key = "-----BEGIN PRIVATE" + " KEY-----"
    (output / "key.pem").write_text(key)
    found = left.collect(output, work, before)
    assert sorted(found) == ["changed.csv", "metrics.json", "new/metrics.json"]
    assert found["metrics.json"].read_text() == "kept"


KERAS = """\
# @title Parameters
EPOCHS = 1  # @param {type:"integer", min:1}"""
TRAIN = """\
import os, keras, numpy as np
model = keras.Sequential([keras.Input((2,), name="pair"), keras.layers.Dense(1, name="sum")])
model.compile(loss="mse")
model.fit(np.ones((8, 2)), np.ones((8, 1)), epochs=EPOCHS, verbose=0)
model.save("mine.keras")
open("report.html", "w").write("a page of mine")
open(os.environ["OUTPUT_DIR"] + "/metrics.json", "w").write('{"epochs": %d}' % EPOCHS)"""


@pytest.mark.long
def test_a_notebook_without_a_tag_or_a_line_of_helpers_leaves_its_model(session, tmp_path, capsys):
    path = own(tmp_path, "import this", KERAS, TRAIN)
    job = helpers.train(session, path, parameters={"EPOCHS": 2})
    said = "Left: model (made from mine.keras: pair float32 → output_0), metrics.json, mine.keras"
    assert job.left.startswith(said)
    assert capsys.readouterr().out.rstrip().endswith(job.left)
    assert list(job.logs())[-1]["textPayload"] == job.left
    assert job.metrics == {"epochs": 2}
    assert storage.list_uris(session, f"{job.model_uri}1/saved_model.pb")
    assert storage.read_bytes(session, f"{job.base_uri}/output/report.html") == b"a page of mine"
    assert b"<html" in storage.read_bytes(session, job.report_uri)
    assert storage.list_uris(session, f"{job.base_uri}/mine.keras")


def test_a_job_that_fails_after_its_model_keeps_it_apart(session, tmp_path):
    code = (
        "import os, pathlib\nplace = pathlib.Path(os.environ['OUTPUT_DIR'], 'model', '1')\n"
        "place.mkdir(parents=True)\n(place / 'saved_model.pb').write_bytes(b'paid for')\n"
        "pathlib.Path('look.txt').write_text('so far')\n1 / 0"
    )
    with pytest.raises(JobError, match="ZeroDivisionError") as caught:
        helpers.train(session, own(tmp_path, code))
    base = caught.value.job.base_uri
    kept = storage.read_bytes(session, f"{base}/failed/model/1/saved_model.pb")
    assert kept == b"paid for"
    assert storage.read_bytes(session, f"{base}/look.txt") == b"so far"
    assert not storage.list_uris(session, f"{base}/model/")
    assert caught.value.job.left == ""
