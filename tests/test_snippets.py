"""Every snippet runs by itself: a fresh kernel, the set-up cell, the snippet, nothing else."""

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook

import helpers

ROOT = Path(__file__).parents[1]
SNIPPETS = nbformat.read(ROOT / "notebooks" / "snippets.ipynb", as_version=4)
GAMES = """
import keras
import helpers
from helpers import baselines, data
table = data.load("game_sales", seed=3)
inputs, x = helpers.encode(table)
model = keras.Model(inputs, helpers.decode(table, x))
helpers.export(model, table, OUTPUT_DIR + "/model")
baselines.write(OUTPUT_DIR, table, metrics={"mae": 1.0}, baselines={}, seed=3)
"""


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


@pytest.fixture
def cloud(tmp_path, monkeypatch):
    """An empty local cloud, which kernels find by the environment."""
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "cloud"))
    yield helpers.connect("local")
    stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", str(tmp_path / "cloud")]
    subprocess.run(stop, check=True, capture_output=True, timeout=60)


def serve_games(session, folder: Path) -> None:
    """A job that leaves a model of game_sales, registered and deployed."""
    form = new_code_cell('OUTPUT_DIR = ""', metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[form, new_code_cell(GAMES)]), folder / "games.ipynb")
    job = helpers.train(session, str(folder / "games.ipynb"))
    helpers.deploy(session, helpers.register(session, job, name="earnings_prediction"))


@pytest.mark.long
def test_each_snippet_runs_by_itself(cloud, tmp_path):
    found = snippets()
    set_up = found.pop("Set up colab-to-cloud")

    def run(title: str) -> None:
        folder = tmp_path / title.replace(" ", "-")
        folder.mkdir()
        notebook = new_notebook(cells=[new_code_cell(text) for text in set_up + found[title]])
        client = NotebookClient(notebook, timeout=120, resources={"metadata": {"path": folder}})
        try:
            client.execute()
        except Exception as error:
            raise AssertionError(f"{title}: {error}") from error

    last = "Train on the cloud: submit the job"  # its job would be the newest
    alone = [title for title in found if title.startswith("Prototype")]
    with ThreadPoolExecutor(3) as pool:  # 01 needs no cloud, so it need not wait for one
        prepared = pool.submit(serve_games, cloud, tmp_path)
        started = pool.map(run, alone)
        prepared.result()
        list(pool.map(run, [title for title in found if title not in [*alone, last]]))
        list(started)
    run(last)
    assert helpers.find_job(cloud).display_name.startswith("01_prototype-")


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
