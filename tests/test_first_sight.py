"""What a person reads who is here for the first time: nothing false, raw or alarming."""

import sys
import types
import uuid
from pathlib import Path

import nbformat
import pytest

import helpers
from helpers.errors import NotFoundError
from tests.colab import alarming, raw
from tests.rooms import rooms
from tests.test_train import notebook

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def cells(name: str) -> list:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4).cells


def shown(*outputs: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A notebook of one cell that has these outputs."""
    cell = nbformat.v4.new_code_cell("1", outputs=list(outputs))
    return nbformat.v4.new_notebook(cells=[cell])


def stream(text: str, name: str = "stdout") -> nbformat.NotebookNode:
    return nbformat.v4.new_output("stream", name=name, text=text)


def result(**kinds: str) -> nbformat.NotebookNode:
    data = {kind.replace("_", "/"): text for kind, text in kinds.items()}
    return nbformat.v4.new_output("display_data", data=data)


@pytest.mark.parametrize(
    "output",
    [
        result(text_plain="{'mae': 39421.445999999996}"),
        result(text_plain="[227423.22]"),
        result(text_plain="<Figure size 1 with 2 Axes>"),
        result(text_html="<table><td>NaN</td></table>", text_plain=""),
        result(text_html="<table><td>5163.712021</td></table>", text_plain=""),
        stream("Session(cloud='local', project='local')\n"),
        stream("{'mae': 5163.7}; limit 5e4\n"),
        stream("total_earnings    0.00625\ndtype: float64\n"),
        stream("Epoch\n" * 102),
    ],
)
def test_raw_outputs_are_seen(output):
    assert raw(shown(output))


@pytest.mark.parametrize(
    "output",
    [
        stream("a.py:1: UserWarning: Your input ran out of data; interrupting training.\n"),
        stream("2026-11-27 23:02:57: I tensorflow/core/util/port.cc:153] oneDNN\n", "stderr"),
        stream("INFO:tensorflow:Assets written to: /tmp/1/assets\n"),
        stream("anything\n", "stderr"),
    ],
)
def test_alarms_are_seen(output):
    assert alarming(shown(output))


def test_sentences_tables_and_pictures_are_neither():
    bar = "".join(f"\repochs: {n}%" for n in range(100)) + "\n"
    fine = [
        stream("Epoch 5/50: mean error on training rows $4.8 k\n"),
        stream(bar),
        result(text_html="<table><td>$5,160</td><td>0.987</td></table>", text_plain="NaN"),
        result(image_png="iVBOR", text_plain="<Figure size 700x400 with 1 Axes>"),
        stream("Job: http://127.0.0.1:38301/v1/customJobs/1000007 in 12.345 s\n"),
    ]
    assert raw(shown(*fine)) + alarming(shown(*fine)) == []


def test_the_road_is_seen_first():
    about = "raw.githubusercontent.com"
    first = cells("quickstart")[0].source
    assert about in first
    assert "/docs/road.svg)" in first
    assert "The whole road" in first.splitlines()[0]


@pytest.mark.parametrize(
    ("cloud", "colab", "said"),
    [
        ("local", True, "Go on in this tab"),
        ("local", False, "Next: 03_deploy"),
        ("google", True, "Next: 03_deploy"),
    ],
)
def test_after_training_the_next_step_works_where_it_is_read(
    monkeypatch, capsys, cloud, colab, said
):
    """In Colab a local cloud ends at its own tab."""
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    if colab:
        monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    last = next(c.source for c in cells("02_train") if "stop-paying" in c.metadata.get("tags", []))
    helpers_ = types.SimpleNamespace(costs=lambda session: None)
    exec(last, {"CLOUD": cloud, "helpers": helpers_, "session": None})  # noqa: S102
    assert said in capsys.readouterr().out


@pytest.mark.parametrize(("name", "after"), [("00_setup", "01"), ("01_prototype", "02"),
                                             ("02_train", "03"), ("03_deploy", "04")])  # fmt: skip
def test_each_notebook_leads_to_the_next_by_its_address(name, after):
    prose = "\n".join(cell.source for cell in cells(name) if cell.cell_type == "markdown")
    assert f"/blob/v{version()}/notebooks/{after}_" in prose.split("Open In Colab", 1)[1][200:]


def version() -> str:
    from importlib.metadata import version

    return version("colab-to-cloud")


def test_what_is_not_there_is_made_in_the_same_tab(empty_cloud):
    session = helpers.connect("local")
    for find, names in [
        (lambda: helpers.find_model(session, "a"), 'model="a")'),
        (lambda: helpers.find_endpoint(session, "a"), 'model="a", endpoint="a")'),
        (lambda: helpers.find_job(session), "job=True)"),
    ]:
        with pytest.raises(NotFoundError) as missing:
            find()
        assert f"helpers.make_missing(session, {names}" in str(missing.value)


def test_what_is_missing_is_made_and_served(session, artifact, tmp_path, monkeypatch, capsys):
    """The job runs the prototype of this folder: here one that takes a model of before."""
    before = artifact().removeprefix("gs://")
    code = f"import shutil\nshutil.copytree('/gcs/{before}', OUTPUT_DIR + '/model')"
    notebook(tmp_path, "01_prototype.ipynb", code)
    monkeypatch.chdir(tmp_path)
    name = f"missing-{uuid.uuid4().hex[:8]}"
    helpers.make_missing(session, model=name, endpoint=name, job=True)
    said = capsys.readouterr().out
    assert f'No model "{name}" yet: training one for 5 epochs' in said
    rows = rooms()[["size", "kind"]][80:]
    answers = helpers.predict(helpers.find_endpoint(session, name), rows)
    assert len(answers) == len(rows)
    helpers.make_missing(session, model=name, endpoint=name, job=True)
    assert capsys.readouterr().out == "Everything this notebook needs is there.\n"
    helpers.cleanup(session, name=name)


def test_a_session_and_an_empty_bill_are_sentences(empty_cloud):
    session = helpers.connect("local")
    assert str(session).startswith("The local cloud, on this machine: nothing leaves it")
    bill = helpers.costs(session)
    assert bill.empty
    assert {"what", "usd_per_hour"} <= set(bill.columns)
    assert bill._repr_html_() == "<p>Nothing bills.</p>"


def test_set_up_of_a_local_cloud_says_one_thing(empty_cloud, capsys):
    plan = helpers.setup(helpers.connect("local"))
    said = capsys.readouterr().out
    assert "nothing to do" in said
    assert "not ready" not in said
    assert "missing:" not in said
    assert "todo" not in plan._repr_html_()
    assert "todo" in plan
