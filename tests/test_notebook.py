"""Finding, checking, running and keeping notebooks; real kernels where a kernel matters."""

import json
import sys
import types
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

import helpers
from helpers import storage
from helpers.cells import kernel
from helpers.errors import NotebookError, NotFoundError, SettingError
from helpers.notebooks import (
    check_parameters,
    find_notebook,
    read_parameters,
    scan_secrets,
)

FORM = """\
# @title Parameters
EPOCHS = 50  # @param {type:"integer", min:1}
RATE = 0.5  # @param {type:"number"}
DATA = "game_sales"  # @param {type:"string"}
SHUFFLE = True  # @param {type:"boolean"}
CLOUD = "local"  # @param ["local", "google"]
SHARE = 100  # @param {type:"slider", min:1, max:100, step:1}"""
# Put together here, so that no scanner of this repository takes them for real ones.
SECRETS = {
    "private key": "-----BEGIN RSA PRIVATE"
    + " KEY-----\nMIIEow\n-----END RSA PRIVATE"
    + " KEY-----",
    "service account key": json.dumps({"type": "service" + "_account", "project_id": "p"}),
    "access token": "ya29" + ".a0Af_B-" + "x" * 30,
    "API key": "AI" + "za" + "Sy0123456789abcdefghijABCDEFGHIJ_-x",
    "client secret": "GOC" + "SPX-" + "a1B2_" * 5,
}


def write(path: Path, *cells: str, form: str = FORM) -> Path:
    """A notebook of a title, a parameters cell and these code cells."""
    notebook = new_notebook(
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    )
    notebook.metadata.kernelspec.language = "python"
    badge = "[![Open](https://example.com/badge.svg)](https://example.com/open)"
    parameters = new_code_cell(form, metadata={"tags": ["parameters"]})
    notebook.cells = [new_markdown_cell(f"# A <small> title\n\n{badge}\n\nText."), parameters]
    notebook.cells += [new_code_cell(cell) for cell in cells]
    nbformat.write(notebook, path)
    return path


def text_of(path: Path) -> str:
    """Everything that a notebook's cells printed or showed."""
    cells = nbformat.read(path, as_version=4).cells
    return "".join(str(cell.get("outputs", "")) for cell in cells)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project with a notebooks folder, as the working directory."""
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "pyproject.toml").touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Finding


def test_found_beside_the_working_directory_before_the_project(project, monkeypatch):
    write(project / "notebooks" / "mine.ipynb", "1")
    assert find_notebook("mine.ipynb").path == project / "notebooks" / "mine.ipynb"
    (project / "work").mkdir()
    monkeypatch.chdir(project / "work")
    assert find_notebook("mine").path == project / "notebooks" / "mine.ipynb"
    write(project / "work" / "mine.ipynb", "2")
    assert find_notebook("mine.ipynb").path == project / "work" / "mine.ipynb"


def test_template_by_name_and_edited_copy(project):
    template = find_notebook("01_prototype.ipynb")
    assert (template.origin, template.name) == ("the template as installed", "01_prototype")
    notebook = nbformat.read(template.path, as_version=4)
    notebook.cells[2].metadata["note"] = "not a change of what runs"
    nbformat.write(notebook, project / "01_prototype.ipynb")
    same = find_notebook("01_prototype.ipynb")
    assert (same.path.parent, same.origin) == (project, "the template as installed")
    notebook.cells[2].source += "\nMORE = 1"
    nbformat.write(notebook, project / "01_prototype.ipynb")
    edited = find_notebook("01_prototype.ipynb")
    assert edited.origin == "your edited copy"
    assert edited.sha256 != same.sha256
    assert len(edited.sha256) == 12


def test_missing_notebook_names_the_nearest(project):
    with pytest.raises(NotFoundError, match=r'Did you mean "01_prototype.ipynb"'):
        find_notebook("01_protoype.ipynb")
    with pytest.raises(SettingError, match="pass the session"):
        find_notebook("gs://bucket/a.ipynb")


def test_found_in_the_bucket(session, tmp_path):
    path = write(tmp_path / "far.ipynb", "1")
    uri = storage.upload_file(session, path, f"gs://{session.bucket}/{tmp_path.name}/far.ipynb")
    found = find_notebook(uri, session)
    assert (found.name, found.origin) == ("far", "from the bucket")
    assert found.path.read_bytes() == path.read_bytes()


# Parameters


def test_read_parameters(tmp_path):
    path = write(tmp_path / "a.ipynb", "OTHER = 1")
    assert read_parameters(path) == {
        "EPOCHS": 50, "RATE": 0.5, "DATA": "game_sales", "SHUFFLE": True,
        "CLOUD": "local", "SHARE": 100,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("EPOCHS", "10", 10),
        ("EPOCHS", 3.0, 3),
        ("RATE", 3, 3.0),
        ("RATE", "1e-3", 0.001),
        ("SHUFFLE", "false", False),
        ("DATA", Path("a") / "b.csv", str(Path("a") / "b.csv")),
        ("DATA", 7, "7"),
        ("CLOUD", "google", "google"),
    ],
)
def test_values_are_converted_when_nothing_is_lost(tmp_path, name, value, wanted):
    checked = check_parameters(write(tmp_path / "a.ipynb"), {name: value})
    assert checked == {name: wanted}
    assert type(checked[name]) is type(wanted)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EPOCH", 1, 'Parameter "EPOCH" is unknown in a.ipynb. Did you mean "EPOCHS"?'),
        ("EPOCHS", "ten", "'ten'; expected a whole number like 50"),
        ("EPOCHS", 2.5, "expected a whole number"),
        ("EPOCHS", True, "expected a whole number"),
        ("EPOCHS", None, "expected a whole number"),
        ("EPOCHS", 0, "is 0; expected 1 or more"),
        ("EPOCHS", float("nan"), "expected a whole number"),
        ("SHARE", 101, "expected 1 to 100"),
        ("RATE", "fast", "expected a number"),
        ("RATE", float("inf"), "expected a number"),
        ("SHUFFLE", 1, "expected True or False"),
        ("DATA", ["a"], "expected text"),
        ("CLOUD", "gogle", 'Did you mean "google"?'),
        ("API_TOKEN", "x", "looks like a secret"),
        ("db_password", "x", "looks like a secret"),
    ],
)
def test_values_that_do_not_fit_are_refused(tmp_path, name, value, said):
    with pytest.raises(SettingError) as refused:
        check_parameters(write(tmp_path / "a.ipynb"), {name: value})
    assert said in str(refused.value)


def test_a_file_that_is_no_notebook(tmp_path):
    (tmp_path / "a.ipynb").write_text("print(1)")
    with pytest.raises(NotebookError, match="is not a notebook"):
        read_parameters(tmp_path / "a.ipynb")


# Running


def test_run_converts_parameters_uses_this_interpreter_and_reports(tmp_path, capfd):
    look = "import sys\nprint(sys.executable, repr(EPOCHS), repr(SHUFFLE))"
    table = "import pandas as pd\npd.DataFrame({'column': [1]})"
    path = write(tmp_path / "a.ipynb", look, table)
    output = helpers.run_notebook(
        path, tmp_path / "out" / "a.ipynb", {"EPOCHS": "7", "SHUFFLE": "false"}, log=True
    )
    line = f"{sys.executable} 7 False"
    assert line in text_of(output)
    assert line in capfd.readouterr().out
    page = output.with_suffix(".html").read_text(encoding="utf-8")
    assert "<title>A &lt;small&gt; title</title>" in page
    assert "column" in page


def test_a_failing_cell_is_named_and_the_executed_notebook_kept(tmp_path):
    path = write(tmp_path / "bad.ipynb", "print('so far')", "raise ValueError('no such row')", "1")
    with pytest.raises(NotebookError) as failed:
        helpers.run_notebook(path, tmp_path / "out.ipynb")
    first, second = str(failed.value).splitlines()
    assert first == "cell 3 of bad.ipynb raised ValueError: no such row"
    assert str(tmp_path / "out.ipynb") in second
    assert failed.value.__cause__ is not None
    assert "so far" in text_of(tmp_path / "out.ipynb")
    assert "no such row" in (tmp_path / "out.html").read_text(encoding="utf-8")


def test_a_notebook_that_leaves_early_has_failed(tmp_path):
    path = write(tmp_path / "early.ipynb", "import sys\nsys.exit(0)", "print('never')")
    with pytest.raises(NotebookError, match=r"cell 3 of early.ipynb did not run"):
        helpers.run_notebook(path, tmp_path / "out.ipynb", report=False)
    assert not (tmp_path / "out.html").exists()


def test_a_kernel_that_dies_is_said_so(tmp_path):
    path = write(tmp_path / "dead.ipynb", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookError, match=r"the kernel of dead.ipynb died"):
        helpers.run_notebook(path, tmp_path / "out.ipynb", report=False)


def test_a_secret_in_an_output_is_taken_out_and_named_by_kind(tmp_path):
    half = len(SECRETS["access token"]) // 2
    parts = SECRETS["access token"][:half], SECRETS["access token"][half:]
    path = write(tmp_path / "leak.ipynb", f"print({parts[0]!r} + {parts[1]!r})\n1 / 0")
    with pytest.raises(NotebookError) as refused:
        helpers.run_notebook(path, tmp_path / "out.ipynb")
    assert "cell 2 of leak.ipynb shows a secret (access token)" in str(refused.value)
    for file in ("out.ipynb", "out.html"):
        kept = (tmp_path / file).read_text(encoding="utf-8")
        assert SECRETS["access token"] not in kept
        assert "access token taken out" in kept


def test_nothing_runs_with_an_unknown_parameter(tmp_path):
    path = write(tmp_path / "a.ipynb", "print(1)")
    with pytest.raises(SettingError, match="Did you mean"):
        helpers.run_notebook(path, tmp_path / "out.ipynb", {"EPOCH": 1})
    assert not (tmp_path / "out.ipynb").exists()


# Secrets


@pytest.mark.parametrize("kind", SECRETS)
@pytest.mark.parametrize("where", ["stream", "html", "source"])
def test_secrets_are_found_wherever_they_are(tmp_path, kind, where):
    path = write(tmp_path / "a.ipynb", "1")
    notebook, secret = nbformat.read(path, as_version=4), SECRETS[kind]
    if where == "stream":
        output = nbformat.v4.new_output("stream", text=f"before {secret} after")
        notebook.cells[2].outputs = [output]
    elif where == "html":
        shown = {"text/html": f"<b>{secret}</b>"}
        notebook.cells[2].outputs = [nbformat.v4.new_output("display_data", data=shown)]
    else:
        notebook.cells[2].source = f"x = '''{secret}'''"
    nbformat.write(notebook, path)
    with pytest.raises(NotebookError) as refused:
        scan_secrets(path)
    assert f"cell 2 of a.ipynb shows a secret ({kind})" in str(refused.value)
    assert secret not in str(refused.value)


def test_the_local_clouds_token_is_a_secret(tmp_path, monkeypatch):
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "emulator.json").write_text('{"token": "0123456789abcdef"}')
    path = write(tmp_path / "a.ipynb", "t = '0123456789abcdef'")
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path))
    scan_secrets(path)
    monkeypatch.setenv("LOCAL_CLOUD_DIR", str(tmp_path / "state"))
    with pytest.raises(NotebookError, match="local cloud's token"):
        scan_secrets(path)


def test_plain_notebooks_and_pictures_pass_the_scan(tmp_path):
    path = write(tmp_path / "a.ipynb", "1")
    notebook = nbformat.read(path, as_version=4)
    picture = {"image/png": "iVBOR" + SECRETS["API key"] + "AAAA"}
    notebook.cells[2].outputs = [nbformat.v4.new_output("display_data", data=picture)]
    nbformat.write(notebook, path)
    scan_secrets(path)


# Saving


def test_save_stores_without_outputs(session, tmp_path, capsys):
    path = write(tmp_path / "mine.ipynb", "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[2].outputs = [nbformat.v4.new_output("stream", text="row of my data")]
    nbformat.write(notebook, path)
    uri = helpers.save_notebook(session, str(path))
    assert uri.startswith(f"gs://{session.bucket}/notebooks/mine-")
    stored = storage.read_bytes(session, uri).decode()
    assert "row of my data" not in stored
    assert [c.source for c in nbformat.reads(stored, 4).cells] == [c.source for c in notebook.cells]
    said = capsys.readouterr().out
    assert all(piece in said for piece in ("mine.ipynb", session.bucket, session.location))
    assert helpers.save_notebook(session, str(path)) == uri


def test_save_needs_to_know_the_file(session, monkeypatch):
    monkeypatch.delenv("JPY_SESSION_NAME", raising=False)
    with pytest.raises(SettingError, match="does not tell which file"):
        helpers.save_notebook(session)


def test_save_takes_the_file_that_jupyter_names(session, tmp_path, monkeypatch):
    monkeypatch.setenv("JPY_SESSION_NAME", str(write(tmp_path / "named.ipynb", "1")))
    assert "/notebooks/named-" in helpers.save_notebook(session)


def test_save_refuses_a_secret(session, tmp_path):
    path = write(tmp_path / f"{tmp_path.name}.ipynb", f"key = {SECRETS['API key']!r}")
    with pytest.raises(NotebookError, match=r"API key.*nothing was stored"):
        helpers.save_notebook(session, str(path))
    assert not storage.list_uris(session, f"gs://{session.bucket}/notebooks/{tmp_path.name}")


def test_save_in_colab_asks_the_browser(session, tmp_path, monkeypatch):
    notebook = json.loads(write(tmp_path / "x.ipynb", "edited = 'in the browser'").read_text())
    notebook["metadata"]["colab"] = {"name": "01_prototype.ipynb"}
    asked = []

    def blocking_request(kind, request="", timeout_sec=5):
        asked.append(kind)
        return {"ipynb": notebook} if len(asked) == 1 else None

    colab = types.ModuleType("google.colab")
    colab._message = types.SimpleNamespace(blocking_request=blocking_request)
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    uri = helpers.save_notebook(session)
    assert "/notebooks/01_prototype-" in uri
    assert b"in the browser" in storage.read_bytes(session, uri)
    assert asked == ["get_ipynb"]
    with pytest.raises(NotebookError, match="did not hand over"):
        helpers.save_notebook(session)
    colab._message.blocking_request = lambda *_, **__: {"ipynb": {}}
    with pytest.raises(NotebookError, match="did not hand over"):
        helpers.save_notebook(session)

    def refused(*_, **__):
        raise RuntimeError("Error: notebook is read-only")

    colab._message.blocking_request = refused
    with pytest.raises(NotebookError, match="answered with an error.*read-only"):
        helpers.save_notebook(session)


# Parameters cells of people's own notebooks


OWN = """\
#@title Parameters { display-mode: "form" }
!pip install -q pandas
EPOCHS = 50  #@param {"type":"integer","min":1}
RATE: float = 1  # @param {"type": "slider", "min": 0.5, "max": 2, "step": 0.5}
LIMIT: int | None = None
SIZE: Optional[int] = None  # @param {type:"integer", min:8}
MODE = "a # @param b"  # @param ["a # @param b", "c"] {allow-input: false}
DAY = "2026-08-01"  # @param {type:"date"}
FREE = "x"  # @param ["x", "y"] {"allow-input": true}
LAYERS = [64,
          -32]
OPTIONS = {"a": None, "b": [1, 2]}
LOW = -1.5
MANY, FEW = 9, 1
F = not True
B = EPOCHS * 2
MAX_TOKENS = 20000
"""


def own(path: Path, *cells: str) -> Path:
    """A notebook as Colab saves it: no cell has a tag."""
    notebook = new_notebook(metadata={"kernelspec": {"name": "python3", "display_name": "P"}})
    notebook.cells = [new_code_cell(cell) for cell in ("import sys", OWN, *cells)]
    nbformat.write(notebook, path)
    return path


def test_a_cell_that_colab_draws_as_a_form_is_the_parameters_cell(tmp_path):
    known = read_parameters(own(tmp_path / "own.ipynb"))
    assert known == {
        "EPOCHS": 50, "RATE": 1, "LIMIT": None, "SIZE": None, "MODE": "a # @param b",
        "DAY": "2026-08-01", "FREE": "x", "LAYERS": [64, -32],
        "OPTIONS": {"a": None, "b": [1, 2]}, "LOW": -1.5, "MANY": 9, "FEW": 1, "MAX_TOKENS": 20000,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("RATE", "1.5", 1.5),
        ("LIMIT", 5, 5),
        ("LIMIT", "7", 7),
        ("LIMIT", None, None),
        ("SIZE", 8.0, 8),
        ("FREE", "anything", "anything"),
        ("LAYERS", (1, 2), [1, 2]),
        ("LAYERS", "[1, 2]", [1, 2]),
        ("OPTIONS", {"a": -1}, {"a": -1}),
        ("LOW", -3, -3.0),
        ("MANY", 2, 2),
        ("MAX_TOKENS", 100, 100),
        ("MAX_TOKENS", "100", 100),
    ],
)
def test_values_of_an_own_form_are_taken(tmp_path, name, value, wanted):
    checked = check_parameters(own(tmp_path / "own.ipynb"), {name: value})
    assert checked == {name: wanted}
    assert type(checked[name]) is type(wanted)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("EPOCHS", 0, "is 0; expected 1 or more"),
        ("RATE", 3, "is 3.0; expected 0.5 to 2"),
        ("LIMIT", "many", "expected a whole number or None"),
        ("SIZE", 4, "expected 8 or more"),
        ("MODE", "d", "Known: a # @param b, c"),
        ("DAY", "2026-13-01", "expected a date"),
        ("F", False, "its value is computed (not True)"),
        ("B", 3, "its value is computed (EPOCHS * 2)"),
        ("OPTIONS", [1], "expected a dictionary"),
        ("LAYERS", {"a": object()}, "expected a list"),
        ("EPOCH", 3, 'Did you mean "EPOCHS"?'),
    ],
)
def test_values_an_own_form_would_not_let_through_are_refused(tmp_path, name, value, said):
    with pytest.raises(SettingError) as refused:
        check_parameters(own(tmp_path / "own.ipynb"), {name: value})
    assert said in str(refused.value)


def test_without_a_parameters_cell_the_error_says_how_to_make_one(tmp_path):
    path = tmp_path / "none.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("EPOCHS = 3  # not @param")]), path)
    with pytest.raises(SettingError, match='has no parameters cell. .* "# @title Parameters"'):
        check_parameters(path, {"EPOCHS": 5})


def test_an_own_form_is_set_before_the_cells_below_it(tmp_path):
    path = own(tmp_path / "own.ipynb", "print(EPOCHS, RATE, LIMIT, LAYERS)")
    cells = nbformat.read(path, as_version=4)
    cells.cells[1].source = (
        cells.cells[1]
        .source.replace("!pip install -q pandas\n", "")
        .replace("Optional[int]", "int")
    )
    nbformat.write(cells, path)
    before = path.read_bytes()
    given = {"EPOCHS": 7, "RATE": 2, "LIMIT": 3, "LAYERS": [1]}
    output = helpers.run_notebook(path, tmp_path / "out" / "own.ipynb", given, report=False)
    assert "7 2.0 3 [1]" in text_of(output)
    assert path.read_bytes() == before
    assert [file.name for file in output.parent.iterdir()] == ["own.ipynb"]


LEAVES = """
import atexit, gc, os, sys, tempfile, threading, time, types
ours = [name for name in sys.modules if name.startswith(("helpers", "colab_to_cloud"))]
print(ours, [os.path.basename(path) for path in sys.path[:2]], __name__)
gc.disable()
beside = sys.modules["beside"] = types.ModuleType("beside")
beside.self, beside.file = beside, open("circle.bin", "wb")
beside.file.write(b"never closed, in a circle")
plain = open("plain.txt", "w"); plain.write("never closed")
binary = open("binary.bin", "wb"); binary.write(b"never closed")
atexit.register(lambda: open("atexit.txt", "w").write("ran"))
def work():
    time.sleep(0.5)
    open("thread.txt", "w").write("ended")
threading.Thread(target=work).start()
kept = tempfile.TemporaryDirectory(dir=".", prefix="kept-")
class Last:
    def __del__(self, gc=gc, open=open):
        with open("last.txt", "w") as file:
            file.write(str(gc.get_freeze_count()))
beside.last = Last()
"""


def test_a_kernel_ends_with_all_written_and_looks_through_nothing(tmp_path):
    path, work = write(tmp_path / "leaves.ipynb", LEAVES), tmp_path / "work"
    work.mkdir()
    made = helpers.run_notebook(path, tmp_path / "out.ipynb", report=False, cwd=work)
    said = nbformat.read(made, as_version=4).cells[-1].outputs[0].text
    assert said.startswith("[] [")
    assert said.endswith(" __main__\n")
    assert "cells" not in said
    left = {path.name: path.read_bytes() for path in work.iterdir()}
    assert int(left.pop("last.txt")) > 10_000  # objects that no collection looks at
    assert left == {
        "circle.bin": b"never closed, in a circle", "plain.txt": b"never closed",
        "binary.bin": b"never closed", "atexit.txt": b"ran", "thread.txt": b"ended",
    }  # fmt: skip


@pytest.mark.parametrize(("failures", "runs"), [(2, True), (3, False)])
def test_a_kernel_whose_port_is_taken_is_started_again(
    tmp_path, monkeypatch, capfd, failures, runs
):
    """A port is free when it is chosen, not yet when it is used; the cells run once."""
    launcher, tried = tmp_path / "launcher.py", tmp_path / "tried"
    launcher.write_text(
        "import json, pathlib, runpy, socket, sys\n"
        f"tried = pathlib.Path({str(tried)!r})\n"
        "text = (tried.read_text() if tried.exists() else '') + 'x'\n"
        "tried.write_text(text)\n"
        "about = json.loads(pathlib.Path(sys.argv[sys.argv.index('-f') + 1]).read_text())\n"
        f"if len(text) <= {failures}:\n"
        "    taken = socket.create_server(('127.0.0.1', about['iopub_port']))\n"
        f"runpy.run_path({str(kernel.LAUNCHER)!r}, run_name='__main__')\n"
    )
    monkeypatch.setattr(kernel, "LAUNCHER", launcher)
    path = write(tmp_path / "a.ipynb", "open('ran', 'a').write('1')")
    if not runs:
        with pytest.raises(NotebookError, match="kernel ended before it ran a cell"):
            helpers.run_notebook(path, tmp_path / "out.ipynb", report=False, cwd=tmp_path)
        assert "The kernel can't start: Address already in use" in capfd.readouterr().err
        return
    helpers.run_notebook(path, tmp_path / "out.ipynb", report=False, cwd=tmp_path)
    assert (tmp_path / "ran").read_text() == "1"
    assert len(tried.read_text()) == 3


def test_a_kernel_sees_no_module_of_ours_by_its_bare_name(tmp_path, monkeypatch):
    """`code` is the standard library's, also where the checkout is reached by a link."""
    (tmp_path / "linked").symlink_to(kernel.LAUNCHER.parent)
    monkeypatch.setattr(kernel, "LAUNCHER", tmp_path / "linked" / kernel.LAUNCHER.name)
    path = write(tmp_path / "a.ipynb", "import code; code.InteractiveConsole; print('fine')")
    output = helpers.run_notebook(path, tmp_path / "out.ipynb", report=False, cwd=tmp_path)
    assert "fine" in text_of(output)
