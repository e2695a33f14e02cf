"""`make run` in a copy of the project; and on the cloud it leaves every snippet by itself: nothing
is there but the set-up cell and the snippet."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import helpers
from tests.colab import alarming, raw, undrawable
from tests.kernels import ByFiles
from tests.test_road import shown

ROOT = Path(__file__).parents[1]
SNIPPETS = nbformat.read(ROOT / "notebooks" / "snippets.ipynb", as_version=4)


def snippets(cells=SNIPPETS.cells) -> dict[str, list[str]]:
    """Title -> its code cells, as Colab reads them: a heading, then code up to the next one."""
    found, title = {}, ""
    for cell in cells:
        if cell.cell_type == "markdown":
            title = cell.source.splitlines()[0].lstrip("# ")
            found[title] = []
        else:
            found[title].append(cell.source)
    return {title: code for title, code in found.items() if code}


@dataclass(frozen=True)
class Drive:
    """What `make run` said and left."""

    project: Path
    said: str
    page: str
    built: bool  # the image of the job


def drive(project: Path) -> Drive:
    command = [sys.executable, project / ".ci" / "road.py", "EPOCHS=1"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    page = (project / "outputs" / "index.html").read_text()
    trained = shown(nbformat.read(project / "outputs" / "02_train.ipynb", as_version=4))
    built = "nothing to build" not in trained.split("Image serving")[0]
    return Drive(project, done.stdout, page, built)


@pytest.fixture(scope="module")
def driven(tmp_path_factory) -> Drive:
    """The drive, once, on an empty local cloud that kernels find by the environment."""
    folder = tmp_path_factory.mktemp("driven")
    project = folder / "project"
    project.mkdir()
    for part in (".ci", "colab_to_cloud", "helpers", "notebooks", "pyproject.toml"):
        (project / part).symlink_to(ROOT / part)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOCAL_CLOUD_DIR", str(folder / "cloud"))
        yield drive(project)
        stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", folder / "cloud"]
        subprocess.run(stop, check=True, capture_output=True, timeout=60)


def assert_told(done: Drive) -> None:
    for word in ("00_setup", "04_predict", "Test error", "gradient boosting", "Endpoint"):
        assert word in done.said
    assert done.page.count("<article>") == 6  # the five and the job
    for made in ("Training job", "Model earnings_prediction version", "Endpoint earnings"):
        assert f">{made}" in done.page


@pytest.mark.long
def test_make_run_says_what_came_of_it(driven):
    assert_told(driven)
    assert "last run" not in driven.page
    assert driven.built
    left = {path.stem: nbformat.read(path, 4) for path in driven.project.glob("outputs/*.ipynb")}
    assert len(left) == 6
    for notebook in left.values():
        assert undrawable(notebook) + alarming(notebook) + raw(notebook) == []
    assert "nothing to do" in shown(left["00_setup"])
    assert "earnings_prediction version 1: default, candidate, v1" in shown(left["02_train"])
    assert "Address: http://127.0.0.1:" in shown(left["03_deploy"])
    assert "total_earnings: $" in shown(left["04_predict"])
    command = [sys.executable, driven.project / ".ci" / "road.py", "EPOCH=1"]
    wrong = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert wrong.returncode == 2
    assert 'Did you mean "EPOCHS"' in wrong.stderr


@pytest.mark.soak
def test_a_second_make_run_builds_no_image_and_compares(driven):
    again = drive(driven.project)
    assert_told(again)
    assert "last run" in again.page
    assert not again.built


# A kernel as good as new: no names, no modules of ours, another folder.
AS_NEW = """\
%reset -f
import os, sys
for name in [name for name in sys.modules if name.partition(".")[0] == "helpers"]:
    del sys.modules[name]
os.makedirs({folder!r})
os.chdir({folder!r})
%reset -f
"""


@pytest.mark.long
@pytest.mark.parametrize("kernels", [3, pytest.param(0, marks=pytest.mark.soak)])
def test_each_snippet_runs_by_itself(driven, tmp_path, kernels):
    """In kernels made as good as new between two of them; the long form starts one for each."""
    found, cloud = snippets(), helpers.connect("local")
    set_up = found.pop("Set up colab-to-cloud")

    def run(titles: list[str]) -> None:
        client = NotebookClient(new_notebook(), timeout=240, kernel_manager_class=ByFiles)
        with client.setup_kernel(cwd=str(tmp_path)):
            for title in titles:
                clean = AS_NEW.format(folder=str(tmp_path / title.replace(" ", "-")))
                for source in [clean, *set_up, *found[title]]:
                    cell = new_code_cell(source)
                    client.nb.cells.append(cell)
                    try:
                        client.execute_cell(cell, len(client.nb.cells) - 1)
                    except Exception as error:
                        raise AssertionError(f"{title}: {error}") from error

    newest = helpers.find_job(cloud)
    last = "Train on the cloud: submit the job"  # its job would be the newest
    titles = [title for title in found if title != last]
    heavy = [title for title in titles if "import keras" in "".join(found[title])]
    light = [title for title in titles if title not in heavy]
    parts = [heavy, light[::2], light[1::2]] if kernels else [[title] for title in titles]
    assert len(heavy) > 5
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, parts))
    assert helpers.find_job(cloud) == newest
    run([last])
    submitted = helpers.find_job(cloud)
    assert submitted != newest
    assert submitted.display_name.startswith("01_prototype-")


def test_every_tagged_cell_is_in_a_snippet_as_it_is():
    code = [cell.source for cell in SNIPPETS.cells if cell.cell_type == "code"]
    tagged = [
        cell.source
        for path in sorted(ROOT.glob("notebooks/*/*.ipynb")) + sorted(ROOT.glob("notebooks/0*"))
        for cell in nbformat.read(path, as_version=4).cells
        if "template" in cell.metadata.get("tags", [])
    ]
    assert len(tagged) > 15
    assert set(tagged) <= set(code)


def test_every_snippet_has_a_title_and_says_what_it_does():
    texts = [cell.source for cell in SNIPPETS.cells if cell.cell_type == "markdown"]
    titles = [text.splitlines()[0] for text in texts]
    assert len(set(titles)) == len(titles) == len(snippets()) + 1
    assert all(
        text.splitlines()[0].startswith("#") and len(text.splitlines()) > 2 for text in texts
    )
    assert "metadata.papermill" not in json.dumps(SNIPPETS)
