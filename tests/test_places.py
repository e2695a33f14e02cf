"""Own data and own code: what a job gets of this machine, and what is refused before it."""

import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

import helpers
from helpers import storage
from helpers.cells import staging
from helpers.errors import NotebookError, NotFoundError, SettingError
from tests.test_notebook import SECRETS

FORM = """\
# @title Parameters
DATA = "game_sales"  # @param {type:"string"}
TARGET = ""  # @param {type:"string"}
LOOKUP = ""
TEXT = ""
DATA_SPLIT = "train"
MODEL_NAME = "model"
SCALE = "km/h"
PLAN = ["a.csv", "none"]
KIND = "pictures"  # @param ["pictures", "texts"]
OUTPUT_DIR = "outputs"
MAX_TOKENS = 20000"""


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A working directory with data, modules and a notebook `own.ipynb`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures" / "cats").mkdir(parents=True)
    for name in ("cats/1.png", "cats/2.png", ".hidden", "service-key.json"):
        (tmp_path / "pictures" / name).write_text(name)
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "b.csv").write_text("x,y\n3,4\n")
    for name in ("model", "outputs", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "model" / "note.txt").write_text("not data")
    (tmp_path / "outputs" / "old.txt").write_text("not data")
    (tmp_path / "my_layers.py").write_text("import my_parts\nTWO = my_parts.ONE + 1")
    (tmp_path / "my_parts").mkdir()
    (tmp_path / "my_parts" / "__init__.py").write_text("ONE = 1")
    (tmp_path / "requirements.txt").write_text("pandas\ntensorflow==2.1\n")
    return tmp_path


def own(folder, *cells: str, form: str = FORM) -> str:
    made = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "P"}})
    made.cells = [new_code_cell(cell) for cell in (form, *cells)]
    nbformat.write(made, folder / "own.ipynb")
    return "own.ipynb"


def named(session, desk, given: dict, form: str = FORM) -> dict:
    """What each parameter names: parameter -> names in the bucket."""
    work = staging.check(session, own(desk, form=form), given)
    return {k: sorted(n for p in found for n in p.files) for k, found in work.places.items()}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({}, {}),
        ({"DATA": "wine", "MAX_TOKENS": 100, "TARGET": "pictures"}, {}),
        ({"DATA": "gs://bucket/far.csv"}, {}),
        ({"SCALE": "*.py", "TARGET": "*"}, {}),
        ({"TEXT": "pictures", "DATA_SPLIT": "test"}, {}),
        ({"LOOKUP": "x" * 300, "TARGET": "~nobody"}, {}),
        ({"LOOKUP": "one line\nand * another.csv" * 100}, {}),
        ({"SCALE": "Europe/Berlin", "MODEL_NAME": "a.keras"}, {}),
        ({"DATA": "https://example.com/a.csv"}, {}),
        ({"DATA": "a.csv"}, {"DATA": ["a.csv"]}),
        ({"DATA": "./pictures"}, {"DATA": ["pictures/cats/1.png", "pictures/cats/2.png"]}),
        ({"DATA": "pictures/"}, {"DATA": ["pictures/cats/1.png", "pictures/cats/2.png"]}),
        ({"DATA": "*.csv"}, {"DATA": ["data/a.csv", "data/b.csv"]}),
        ({"LOOKUP": "b.csv", "DATA": "a.csv"}, {"DATA": ["a.csv"], "LOOKUP": ["b.csv"]}),
        ({"LOOKUP": "a.csv", "DATA": "a.csv"}, {"DATA": ["a.csv"], "LOOKUP": ["a.csv"]}),
    ],
)
def test_what_parameters_name_here_goes_along(session, desk, given, wanted):
    assert named(session, desk, given) == wanted | {"PLAN": ["a.csv"]}


def test_a_default_and_a_whole_path_go_along_too(session, desk):
    (desk / "far").mkdir()
    (desk / "far" / "a.csv").write_text("another")
    form = f'# @title Parameters\nDATA = "a.csv"\nTABLE = "{desk}/far/a.csv"'
    assert named(session, desk, {}, form) == {"DATA": ["a.csv"], "TABLE": ["table-a.csv"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"DATA": "pictuers"}, 'DATA="pictuers": no file or folder.* Did you mean "pictures"'),
        ({"DATA": "game_sale"}, 'Did you mean "game_sales"'),
        ({"DATA": "c.csv"}, "no file or folder"),
        ({"LOOKUP": "data/lookup.csv"}, "no file or folder"),
        ({"TARGET": "y", "LOOKUP": "~/none/at/all"}, "no file or folder"),
        ({"DATA": "nothing*.csv"}, "matches no file"),
    ],
)
def test_a_place_that_is_nowhere_is_refused_before_a_machine_starts(session, desk, given, said):
    before = storage.list_uris(session, f"gs://{session.bucket}/jobs/")
    with pytest.raises(NotFoundError, match=said):
        helpers.train(session, own(desk), parameters=given)
    assert storage.list_uris(session, f"gs://{session.bucket}/jobs/") == before


@pytest.mark.parametrize(
    ("cell", "more", "said"),
    [
        ("import my_layers", {}, r"imports my_layers.py, my_parts.*files=\['my_layers.py', 'my_p"),
        ("import my_layers", {"files": ["my_layers.py"]}, r"imports my_parts, .*'my_layers.py'\]"),
        ("from my_parts import ONE", {}, "imports my_parts,"),
        ("open('{desk}/a.csv')", {}, "reads .*a.csv in cell 2.*helpers.fetch"),
        ("1", {"files": ["pictures/service-key.json"]}, "looks like a credential"),
        ("1", {"parameters": {"DATA": "empty"}}, "holds no files"),
        ("1", {"parameters": {"LOOKUP": "pictures/service-key.json"}}, "looks like a credential"),
    ],
)
def test_what_the_job_would_lack_or_must_not_have_is_refused(session, desk, cell, more, said):
    with pytest.raises(SettingError, match=said):
        helpers.train(session, own(desk, cell.format(desk=desk)), **more)


def test_names_that_are_nowhere_are_answered_with_the_nearest(session, desk):
    with pytest.raises(NotFoundError, match='"my_layer.py".*Did you mean "my_layers.py"'):
        helpers.train(session, own(desk), files=["my_layer.py"])
    with pytest.raises(NotFoundError, match='"requirement.txt".*Did you mean "requirements.txt"'):
        helpers.train(session, own(desk), requirements="requirement.txt")
    with pytest.raises(NotebookError, match="shows a secret.*nothing was submitted"):
        helpers.train(session, own(desk, f"key = {SECRETS['API key']!r}"))


def test_a_file_of_this_machine_is_no_value_to_search(session, desk):
    with pytest.raises(SettingError, match="a.csv on this machine, which trials do not have"):
        helpers.tune(session, own(desk), search={"LOOKUP": ["a.csv", "none"]}, metric="mae")


def test_a_computed_value_that_keeps_the_default_is_said(session, desk, capsys):
    form = "# @title Parameters\nEPOCHS = 2\nSTEPS = EPOCHS * 10"
    staging.check(session, own(desk, form=form), {"EPOCHS": 3})
    assert "STEPS = EPOCHS * 10 is computed from the default" in capsys.readouterr().out


LOOK = """\
import json, os
import my_layers
import helpers
folder, table = helpers.fetch(DATA), helpers.fetch(PLAN[0])
found = {"files": sorted(p.name for p in folder.rglob("*.png")), "rows": table.read_text(),
         "data": DATA, "two": my_layers.TWO, "again": helpers.fetch(DATA) == folder,
         "name": folder.name}
json.dump(found, open("metrics.json", "w"))"""


def test_a_job_reads_own_data_and_imports_own_code(session, desk, capsys):
    job = helpers.train(
        session, own(desk, LOOK), parameters={"DATA": "pictures"},
        files=["my_layers.py", "my_parts"], requirements="requirements.txt",
    )  # fmt: skip
    found = job.metrics
    assert found == {
        "files": ["1.png", "2.png"], "rows": "x,y\n1,2\n", "two": 2, "again": True,
        "data": f"{job.base_uri}/input/pictures", "name": "pictures",
    }  # fmt: skip
    said = capsys.readouterr().out
    assert "Upload:   DATA = pictures (2 files, " in said
    assert "Kept out: tensorflow==2.1" in said
    assert "Files:    my_layers.py, my_parts/__init__.py" in said
    assert job.left == "Left no model: helpers.export(model) writes one. Left: metrics.json"
    given = json.loads(storage.read_bytes(session, f"{job.base_uri}/input/parameters.json"))
    assert given["PLAN"] == [f"{job.base_uri}/input/a.csv", "none"]


def test_fetch_gives_paths_and_fetches_once(session, desk, monkeypatch):
    assert helpers.fetch("a.csv") == desk / "a.csv"
    with pytest.raises(NotFoundError, match='Did you mean "a.csv"'):
        helpers.fetch("aa.csv")
    base = f"gs://{session.bucket}/{desk.name}"
    storage.upload_folder(session, desk / "pictures", f"{base}/pictures")
    storage.upload_file(session, desk / "a.csv", f"{base}/pictures.csv")
    monkeypatch.setattr("tempfile.tempdir", str(desk / "tmp"))
    (desk / "tmp").mkdir()
    folder = helpers.fetch(f"{base}/pictures", session=session)
    assert sorted(p.name for p in folder.rglob("*.*")) == [
        ".hidden", "1.png", "2.png", "service-key.json",
    ]  # fmt: skip
    file = helpers.fetch(f"{base}/pictures.csv", session=session)
    assert file.read_text() == "x,y\n1,2\n"
    monkeypatch.setattr(storage, "download_file", None)
    assert helpers.fetch(f"{base}/pictures/", session=session) == folder
    assert helpers.fetch(f"{base}/pictures.csv", session=session) == file
    with pytest.raises(NotFoundError, match='neither a file nor a folder. Did you mean "pictures'):
        helpers.fetch(f"{base}/picture", session=session)
