"""tensorflow-cloud's call on custom jobs: what is packed, what is sent, what comes back."""

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import helpers
from helpers import storage
from helpers import tensorflow_cloud as tfc
from helpers.cells import neighbours
from helpers.errors import CloudError, NotebookError, NotFoundError, SettingError
from helpers.tensorflow_cloud import package
from tests.emulator.conftest import until

ROOT = Path(__file__).parents[1]
SCRIPT = """\
import os, pathlib, sys
from helpers import tensorflow_cloud as tfc
import beside
assert tfc.run(entry_point="nothing.py") is None
print("remote", tfc.remote(), beside.VALUE, *sys.argv[1:])
folder = pathlib.Path(os.environ["OUTPUT_DIR"], "model", "1")
folder.mkdir(parents=True)
(folder / "saved_model.pb").write_bytes(b"model")
"""
CELLS = [
    "import os\n!pip install --quiet something \\\n    more",
    'text = """\n%not a magic\n!nor a command\n# nor a comment\n"""\nfiles = !ls\n%cd here',
    "%%bash\necho never",
    "%%time\nif True:\n    !ls\n    %cd /\ntotal = 7 \\\n    % 4\nprint(repr(text), total)",
    "print?",
]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a script, and things that must not leave it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "beside.py").write_text("VALUE = 3")
    return tmp_path


def jobs(session) -> list[dict]:
    """Every job there is, as the API shows it."""
    collection = session.service("aiplatform").projects().locations().customJobs()
    return session.list(collection, "customJobs", parent=session.parent)


def notebook(cells: list[str]) -> nbformat.NotebookNode:
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def test_a_script_runs_with_its_folder_arguments_and_requirements(session, folder, capsys):
    Path("requirements.txt").write_text("pandas\ntensorflow-cloud==0.1.16\ntensorflow>=2\n")
    answer = tfc.run(
        entry_point="train.py", requirements_txt="requirements.txt", distribution_strategy=None,
        entry_point_args=["--epochs=3", "x"], job_labels={"phase": "test", "owner": "team"},
        docker_image_bucket_name=session.bucket, stream_logs=True,
    )  # fmt: skip
    assert set(answer) == {"job_id", "docker_image"}
    said = capsys.readouterr().out
    assert "Kept out: tensorflow-cloud==0.1.16" in said
    assert "Kept out: tensorflow>=2" in said
    assert "SUCCEEDED" in said
    job = helpers.find_job(session, answer["job_id"])
    assert job.resource()["labels"]["owner"] == "team"
    assert "remote True 3 --epochs=3 x" in [entry["textPayload"] for entry in job.logs()]
    assert storage.read_bytes(session, f"{job.model_uri}1/saved_model.pb") == b"model"


def test_a_script_that_raises_fails_its_job_and_stores_no_model(session, folder):
    Path("train.py").write_text(SCRIPT + "raise ValueError('no such column')")
    answer = tfc.run(entry_point="train.py", distribution_strategy=None)
    job = helpers.find_job(session, answer["job_id"])
    with pytest.raises(helpers.errors.JobError, match="ValueError: no such column"):
        job.wait()
    assert storage.list_uris(session, job.model_uri) == []


def test_a_cancelled_script_stores_what_it_has(session, folder):
    Path("train.py").write_text(
        SCRIPT + "(folder.parent.parent / 'checkpoints').mkdir()\n"
        "(folder.parent.parent / 'checkpoints' / 'epoch-1').write_text('weights')\n"
        "print('ready', flush=True)\nimport time\nwhile True:\n    time.sleep(0.1)\n"
    )
    answer = tfc.run("train.py", distribution_strategy=None)
    job = helpers.find_job(session, answer["job_id"])
    until(lambda: "ready" in [entry["textPayload"] for entry in job.logs()])
    job.cancel()
    with pytest.raises(helpers.errors.JobError, match="cancelled"):
        job.wait()
    stored = f"{job.base_uri}/checkpoints/epoch-1"
    assert storage.read_bytes(session, stored) == b"weights"
    assert storage.list_uris(session, job.model_uri) == []


def test_a_script_that_submits_itself_ends_there(session, folder, local_cloud_folder):
    """As with the library: what follows the call is for the job."""
    Path("self.py").write_text(
        "import helpers\nfrom helpers import tensorflow_cloud as tfc\n"
        "if not tfc.remote():\n    helpers.connect('local')\n"
        "tfc.run(distribution_strategy=None)\nprint('trained', tfc.remote())\n"
    )
    done = subprocess.run(
        [sys.executable, "self.py"], capture_output=True, text=True, timeout=60, check=True
    )
    assert "trained" not in done.stdout
    made = [job["displayName"] for job in jobs(session)]
    job = helpers.find_job(session, next(name for name in made if name.startswith("self-")))
    job.wait()
    assert "trained True" in [entry["textPayload"] for entry in job.logs()]


def test_auto_means_the_librarys_machine_and_workers_get_their_own(session, folder):
    Path("train.py").write_text("print('one of three')")
    account = "a@b.iam.gserviceaccount.com"
    answer = tfc.run("train.py", None, "auto", None, worker_count=2, service_account=account)
    job = helpers.find_job(session, answer["job_id"])
    spec = job.resource()["jobSpec"]
    gpu = {
        "machineType": "n1-standard-8", "acceleratorType": "NVIDIA_TESLA_T4", "acceleratorCount": 1,
    }  # fmt: skip
    assert [pool["machineSpec"] for pool in spec["workerPoolSpecs"]] == [gpu, gpu]
    assert [pool["replicaCount"] for pool in spec["workerPoolSpecs"]] == ["1", "2"]
    images = {pool["containerSpec"]["imageUri"] for pool in spec["workerPoolSpecs"]}
    assert images == {answer["docker_image"]}
    assert spec["serviceAccount"] == account
    assert spec["scheduling"]["timeout"] == "3600s"
    assert job.wait().state == "SUCCEEDED"


def test_the_librarys_own_objects_and_the_presets_it_lacks(session, folder, capsys):
    pytest.importorskip("tensorflow_cloud", reason="make setup installs it")
    Path("train.py").write_text("print('small')")
    configs = tfc.COMMON_MACHINE_CONFIGS
    answer = tfc.run(
        "train.py", distribution_strategy=None, chief_config=configs["CPU"],
        worker_config=configs["L4_1X"], worker_count=1,
        docker_config=tfc.DockerConfig(image="gcr.io/mine", parent_image="python:3.11"),
    )  # fmt: skip
    job = helpers.find_job(session, answer["job_id"])
    chief, worker = (p["machineSpec"] for p in job.resource()["jobSpec"]["workerPoolSpecs"])
    assert chief == {"machineType": "n1-standard-4"}
    assert worker == {
        "machineType": "g2-standard-8", "acceleratorType": "NVIDIA_L4", "acceleratorCount": 1,
    }  # fmt: skip
    assert "Left out: image" in capsys.readouterr().out
    assert job.wait().state == "SUCCEEDED"
    assert isinstance(configs["H100_8X"], tfc.MachineConfig)
    with pytest.raises(SettingError, match="TPU"):
        tfc.run("train.py", chief_config=configs["TPU"])
    with pytest.raises(ValueError, match="Invalid machine configuration"):
        tfc.MachineConfig(cpu_cores=3)
    with pytest.raises(AttributeError, match="service is gone"):
        tfc.CloudTuner  # noqa: B018


def test_without_the_library_everything_else_works_and_the_error_says_how_to_get_it(folder):
    code = (
        "import sys; sys.modules['tensorflow_cloud'] = None\n"
        "import importlib.util; importlib.util.find_spec = lambda name: None\n"
        "from helpers import tensorflow_cloud as tfc; print(tfc.remote())\n"
        "tfc.MachineConfig\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False"
    assert "pip install --no-deps tensorflow-cloud==0.1.16" in done.stderr
    assert "tensorflow" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"entry_point": "trian.py"}, NotFoundError, 'No script "trian.py"'),
        ({"entry_point": "train.sh"}, SettingError, "expected a .py or .ipynb"),
        ({"requirements_txt": "none.txt"}, NotFoundError, "none.txt"),
        ({"distribution_strategy": "mirrored"}, SettingError, "mirrored"),
        ({"entry_point_args": "--x"}, SettingError, "expected a list"),
        ({"worker_count": -1}, SettingError, "workers=-1"),
        ({"job_labels": {"Phase": "x"}}, SettingError, "Label Phase"),
        ({"chief_config": "big"}, SettingError, "is no machine"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_made(
    session, folder, arguments, error, said
):
    before = len(jobs(session))
    with pytest.raises(error, match=said):
        tfc.run(**{"entry_point": "train.py"} | arguments)
    assert len(jobs(session)) == before


def test_a_notebook_becomes_a_script_without_magics_and_with_its_strings(capsys):
    script = package.script_of(notebook(CELLS), "mine.ipynb")
    said = capsys.readouterr().out.splitlines()
    for number, line in [
        (1, "!pip install --quiet something"), (2, "files = !ls"), (2, "%cd here"),
        (3, "%%bash"), (4, "%%time"), (4, "!ls"), (4, "%cd /"), (5, "print?"),
    ]:  # fmt: skip
        assert any(s.startswith(f"Kept out: cell {number} of mine.ipynb: {line}") for s in said)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == r"'\n%not a magic\n!nor a command\n# nor a comment\n' 3"


def test_a_cell_that_is_not_python_is_named():
    with pytest.raises(SettingError, match="Cell 2 of mine.ipynb is not Python"):
        package.script_of(notebook(["x = 1", "x = = 2"]), "mine.ipynb")


def test_no_credential_nothing_hidden_nothing_ignored_is_packed(session, folder, capsys):
    inside = {
        "data/rows.csv": "1", "deep/er/keep.txt": "1", "logs/keep.log": "1", "src/part.py": "",
    }  # fmt: skip
    outside = {
        ".env": "TOKEN=1", "service-key.json": "{}", "deep/id_rsa": "x", "notes.txt": "-----BEGIN "
        "PRIVATE KEY-----", "logs/a.log": "1", "big/x": "1", "deep/er/x.tmp": "1",
        ".git/config": "", "venv/pyvenv.cfg": "", "venv/lib.py": "", "__pycache__/a.pyc": "",
    }  # fmt: skip
    for name, text in (inside | outside).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "away").symlink_to("/etc/hostname")
    (folder / ".gitignore").write_text("# mine\n*.log\n!keep.log\n/big/\n**/x.tmp\n")
    script, files = package.pack_code(session, "train.py")
    assert script == "train.py"
    wanted = {f"code/{name}" for name in [*inside, "train.py", "beside.py"]}
    assert set(files) == wanted
    said = capsys.readouterr().out
    assert "service-key.json" in said
    assert "notes.txt" in said


def test_a_folder_that_is_too_large_is_refused(session, folder, monkeypatch):
    monkeypatch.setattr(neighbours, "LIMIT_BYTES", 1000)
    (folder / "rows.csv").write_bytes(b"1" * 1000)
    with pytest.raises(SettingError, match=".gcloudignore"):
        package.pack_code(session, "train.py")


def test_a_script_or_notebook_that_shows_a_secret_is_refused(session, folder):
    secret = "KEY = 'AIza" + "x" * 35 + "'"
    Path("train.py").write_text(secret)
    with pytest.raises(SettingError, match="shows a secret"):
        package.pack_code(session, "train.py")
    nbformat.write(notebook([secret]), "mine.ipynb")
    with pytest.raises(NotebookError, match="shows a secret"):
        package.pack_code(session, "mine.ipynb")


def test_the_notebook_being_edited_is_taken_without_its_folder(session, folder, monkeypatch):
    nbformat.write(notebook(["x = 1"]), "edited.ipynb")
    monkeypatch.setenv("JPY_SESSION_NAME", str(folder / "edited.ipynb"))
    script, files = package.pack_code(session, None)
    assert script.startswith("edited-")
    assert list(files) == [f"code/{script}"]
    assert b"x = 1" in files[f"code/{script}"]


def test_the_articles_cell_runs_as_it_stands_in_a_notebook(session, folder):
    """Only its import line differs; the notebook that calls it is what the job trains."""
    Path("requirements.txt").write_text("pandas\nscikit-learn\n")
    cells = [
        "!echo shell\n%pwd\nfrom helpers import tensorflow_cloud as tfc\nBUCKET = 'local-bucket'",
        'labels = {"phase": "test", "owner": "team"}\n'
        'tfc.run(requirements_txt="requirements.txt", distribution_strategy="auto", '
        'chief_config="auto",\n        docker_image_bucket_name=BUCKET, job_labels=labels)',
        "import json, os, pathlib\nif tfc.remote():\n"
        '    path = pathlib.Path(os.environ["OUTPUT_DIR"], "metrics.json")\n'
        '    path.write_text(json.dumps({"trained": "in the job"}))\n    display(path.name)',
    ]
    made = notebook(cells)
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "", "language": "python"}
    nbformat.write(made, "article.ipynb")
    helpers.run_notebook("article.ipynb", folder / "out" / "article.ipynb", cwd=folder)
    name = next(job["displayName"] for job in jobs(session) if "article" in job["displayName"])
    assert helpers.find_job(session, name).wait().metrics == {"trained": "in the job"}
    said = (folder / "out" / "article.ipynb").read_text()
    assert said.count("the local cloud is used") == 1


def test_the_bucket_must_be_there(session, folder):
    with pytest.raises(CloudError, match="bucket does not exist"):
        tfc.run("train.py", docker_image_bucket_name="no-such-bucket")


@pytest.mark.long
def test_the_migration_notebook_runs_from_the_articles_cells_to_its_prediction(
    empty_cloud, tmp_path, monkeypatch
):
    monkeypatch.chdir(ROOT)
    path = ROOT / "notebooks" / "more" / "migrate_tensorflow_cloud.ipynb"
    asked = {"EPOCHS": 1, "JOB_EPOCHS": 8}
    out = helpers.run_notebook(path, tmp_path / "out.ipynb", asked)
    cells = nbformat.read(out, as_version=4).cells
    texts = "".join(o.get("text", "") for c in cells for o in c.get("outputs", []))
    assert "Earnings prediction for the proposed product: $" in texts
    assert "Explained: " in texts
    assert "Nothing that bills by the hour is left" in texts
    session = helpers.connect("local")
    for version in ("1", "2"):
        assert helpers.find_model(session, "article_earnings", f"v{version}").version == version
