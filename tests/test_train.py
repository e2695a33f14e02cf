"""Submit, follow, find and cancel jobs, with notebooks small enough to run in a second or two."""

import json

import nbformat
import pytest

import helpers
from helpers import storage
from helpers.cells import staging
from helpers.errors import JobError, NotFoundError, SettingError

pytestmark = pytest.mark.long

SMALL = """\
import json, pathlib, time
folder = pathlib.Path(OUTPUT_DIR)
for epoch in range(EPOCHS):
    print(f"Epoch {epoch + 1}/{EPOCHS}", flush=True)
(folder / "model" / "1").mkdir(parents=True)
(folder / "model" / "1" / "saved_model.pb").write_bytes(b"model")
(folder / "metrics.json").write_text(json.dumps({"epochs": EPOCHS}))
"""


def notebook(folder, name: str, *cells: str):
    parameters = nbformat.v4.new_code_cell('EPOCHS = 3\nOUTPUT_DIR = ""')
    parameters.metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    made = nbformat.v4.new_notebook(
        cells=[parameters, *map(nbformat.v4.new_code_cell, cells)],
        metadata={"kernelspec": kernel, "language_info": {"name": "python"}},
    )
    nbformat.write(made, folder / name)
    return folder / name


def test_a_notebook_becomes_a_job_with_model_report_and_metrics(session, tmp_path, capsys):
    path = notebook(tmp_path, "small.ipynb", SMALL)
    job = helpers.train(session, str(path), parameters={"EPOCHS": 2}, labels={"phase": "test"})
    said = capsys.readouterr().out
    assert "small.ipynb (your edited copy, sha256" in said
    assert "1 × n1-standard-4, at most 1 h of machine time" in said
    assert "RUNNING" in said
    assert "SUCCEEDED" in said
    assert job.state == "SUCCEEDED"
    assert job.metrics == {"epochs": 2}
    assert storage.read_bytes(session, f"{job.model_uri}1/saved_model.pb") == b"model"
    assert b"<html" in storage.read_bytes(session, job.report_uri)
    executed = json.loads(storage.read_bytes(session, f"{job.base_uri}/small.ipynb"))
    assert all(c["execution_count"] for c in executed["cells"] if c["cell_type"] == "code")
    assert job.resource()["labels"]["phase"] == "test"
    texts = [entry["textPayload"] for entry in job.logs()]
    assert "Epoch 2/2" in "\n".join(texts)
    assert helpers.find_job(session, job.number) == job
    assert helpers.find_job(session, job.display_name) == job


@pytest.mark.long
def test_the_prototype_trains_on_two_machines(session):
    """As the template is; the model, the report and the metrics are the chief's."""
    job = helpers.train(session, "01_prototype.ipynb", parameters={"EPOCHS": 1}, workers=1)
    assert job.metrics["epochs"] == 1
    assert len(job.metrics["metrics"]) > 1
    assert storage.read_bytes(session, f"{job.model_uri}1/saved_model.pb")
    executed = json.loads(storage.read_bytes(session, f"{job.base_uri}/01_prototype.ipynb"))
    cells = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    assert all(cell["execution_count"] for cell in cells)
    machines = {entry["resource"]["labels"]["task_name"]: entry for entry in job.logs()}
    assert {"workerpool0-0", "workerpool1-0"} <= machines.keys()


def test_a_job_whose_cell_raises_names_it_and_keeps_the_notebook(session, tmp_path):
    path = notebook(tmp_path, "broken.ipynb", "x = 1", "raise ValueError('no such column')")
    with pytest.raises(JobError, match=r"cell 4 of broken.ipynb raised ValueError") as caught:
        helpers.train(session, str(path))
    job = caught.value.job
    assert job.state == "FAILED"
    kept = storage.read_bytes(session, f"{job.base_uri}/broken.ipynb").decode()
    assert "no such column" in kept


def test_a_job_can_be_cancelled_and_picked_up_again(session, tmp_path):
    path = notebook(tmp_path, "long.ipynb", "import time\nwhile True:\n    time.sleep(0.1)")
    job = helpers.train(session, str(path), wait=False)
    found = helpers.find_job(session, job.display_name)
    found.cancel()
    with pytest.raises(JobError, match="cancelled"):
        found.wait()
    assert job.state == "CANCELLED"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"workers": -1}, "workers=-1"),
        ({"workers": 1}, "No cell of refused.ipynb asks how to share the work"),
        ({"timeout_s": 3}, "timeout_s=3"),
        ({"machine_type": "big one"}, 'machine_type="big one"'),
        ({"labels": {"Phase": "test"}}, "Label Phase"),
        ({"labels": {"phase": "Test it"}}, "Test it"),
        ({"parameters": {"EPOCH": 1}}, 'Did you mean "EPOCHS"'),
        ({"parameters": {"EPOCHS": "ten"}}, "EPOCHS"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(session, tmp_path, arguments, said):
    path = notebook(tmp_path, "refused.ipynb", SMALL)
    before = storage.list_uris(session, f"gs://{session.bucket}/jobs/")
    with pytest.raises(SettingError, match=said):
        helpers.train(session, str(path), **arguments)
    assert storage.list_uris(session, f"gs://{session.bucket}/jobs/") == before


def test_a_notebook_that_is_not_there(session):
    with pytest.raises(NotFoundError, match="01_prototyp"):
        helpers.train(session, "01_prototyp.ipynb")


def test_a_job_that_is_not_there(session):
    with pytest.raises(NotFoundError, match="02_train"):
        helpers.find_job(session, "no-such-job")


ITSELF = {
    "helpers.train(session, helpers.save_notebook(session))": True,
    "uri = helpers.save_notebook(session)\njob = helpers.train(session, uri, wait=False)": True,
    "from helpers import train as go\ngo(session, 'itself.ipynb')": True,
    "import helpers as h\nh.tune(session, notebook='notebooks/itself', search={})": True,
    "NOTEBOOK = 'itself.ipynb'\n!pwd\nhelpers.train(session, NOTEBOOK)": True,
    "helpers.train(session, 'other.ipynb')": False,
    "if 'CLOUD_ML_JOB_ID' not in os.environ:\n    helpers.train(session, 'itself.ipynb')": False,
    "trainer.train(session, 'itself.ipynb')": False,
    "helpers.train(session, helpers.save_notebook(session, 'other.ipynb'))": False,
}


@pytest.mark.parametrize("cell", ITSELF)
def test_a_notebook_that_submits_itself_is_found_before_the_job(session, tmp_path, cell):
    path = notebook(tmp_path, "itself.ipynb", "import helpers", cell)
    if ITSELF[cell]:
        with pytest.raises(SettingError, match="itself.ipynb submits itself: cell 3"):
            staging.check(session, str(path), {})
        search = {"EPOCHS": (1, 2)}
        with pytest.raises(SettingError, match="submits itself"):
            helpers.tune(session, str(path), search=search, metric="loss")
    else:
        assert staging.check(session, str(path), {"EPOCHS": 2}).parameters == {"EPOCHS": 2}


def test_the_newest_job_is_one_made_here(session, tmp_path):
    ours = helpers.train(session, str(notebook(tmp_path, "mine.ipynb", SMALL)), wait=False)
    body = ours.resource()
    body = {"displayName": "of-somebody-else", "jobSpec": body["jobSpec"]}
    session.call(session.collection("customJobs").create(parent=session.parent, body=body))
    assert helpers.find_job(session).name == ours.name
    other = helpers.find_job(session, "of-somebody-else")
    assert other.name != ours.name
    other.cancel()
    ours.wait()
