"""The scripts of `make lint`: each rule catches its breach, each drift is named."""

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ("forms", "links", "generate_notebooks", "lint_notebooks", "road")


@pytest.fixture(scope="module")
def scripts():
    """The scripts of .ci as modules, by name."""
    sys.path.insert(0, str(ROOT / ".ci"))
    yield {name: importlib.import_module(name) for name in SCRIPTS}
    sys.path.remove(str(ROOT / ".ci"))


@pytest.fixture
def copy(tmp_path):
    """A copy of what the scripts read and write."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "helpers").mkdir()
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs" / "road.svg", tmp_path / "docs")
    return tmp_path


def change(path: Path, edit) -> None:
    """Apply a function to a notebook's JSON."""
    notebook = json.loads(path.read_text())
    edit(notebook)
    path.write_text(json.dumps(notebook, indent=1))


def code(notebook: dict, number: int) -> dict:
    """Code cell `number`, counted from 1."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"][number - 1]


def source(number: int, text: str):
    """An edit that replaces the source of a code cell."""
    return lambda notebook: code(notebook, number).update(source=text)


def form(old: str, new: str):
    """An edit that replaces text in the parameters cell, where it first stands."""

    def edit(notebook: dict) -> None:
        cell = code(notebook, 1)
        cell["source"] = "".join(cell["source"]).replace(old, new, 1)
        assert new in cell["source"]

    return edit


# Rule -> what breaks it in 02_train.ipynb, whose third code cell connects.
BREACHES = {
    "parameters: 0 cells": lambda n: code(n, 1)["metadata"].update(tags=[]),
    "parameters: 2 cells": lambda n: code(n, 3)["metadata"].update(tags=["parameters"]),
    'set "cellView"': lambda n: code(n, 1)["metadata"].pop("cellView"),
    "first line must be": form("# @title Parameters", "# Parameters"),
    "`EPOCHS = 10 * 10": form("EPOCHS = 100", "EPOCHS = 10 * 10"),
    "`EPOCHS = 100`": form('EPOCHS = 100  # @param {type:"integer", min:1}', "EPOCHS = 100"),
    "parameters: EPOCHS is missing": form("EPOCHS = 100", "ROUNDS = 100"),
    "bootstrap:": source(2, "import sys"),
    "heading: 2 lines": lambda n: n["cells"][1].update(source="# Again\n\nText."),
    "heading: 0 lines": lambda n: n["cells"][0].update(source="## No title\n\nText."),
    "badge:": lambda n: n["cells"][0].update(source="# Title\n\nText."),
    "cell 3: outputs:": lambda n: code(n, 3).update(execution_count=4),
    "cell 4: outputs:": lambda n: code(n, 4).update(
        outputs=[{"output_type": "stream", "name": "stdout", "text": "x"}]
    ),
    "cell 3: length: 13 lines": source(3, "x = 1\n" * 13),
    "cell 3: width:": source(3, "x = " + "1" * 90),
    "cell 3: syntax:": source(3, "!pip install nothing"),
    "cell 4: syntax:": source(4, "%pip install nothing"),
    "cell 3: try:": source(3, "try:\n    x = 1\nexcept ValueError:\n    x = 2"),
    "cell 3: empty:": source(3, ""),
    "cell 3: tensorflow:": source(3, "from keras import layers"),
    "cell 3: metadata:": lambda n: code(n, 3)["metadata"].update(executionInfo={}),
    "metadata: remove 'widgets'": lambda n: n["metadata"].update(widgets={}),
    "metadata: `colab` asks": lambda n: n["metadata"]["colab"].update(gpuType="T4"),
    "the tested runtime": lambda n: n["metadata"]["colab"].pop("runtime_attributes"),
    "metadata: remove 'accelerator'": lambda n: n["metadata"].update(accelerator="GPU"),
    "kernelspec:": lambda n: n["metadata"]["kernelspec"].update(name="my-env"),
    "cell 3: heading:": lambda n: n["cells"][4].update(source="## Connect"),
    "heading: `Deep` skips": lambda n: n["cells"][4].update(source="#### Deep\n\nText."),
    "prose: `close this tab`": lambda n: n["cells"][4].update(
        source="## Connect\n\nYou can close this tab."
    ),
    "prose: `tomorrow`": lambda n: n["cells"][4].update(source="## Connect\n\nSeen tomorrow."),
    "cell 3: form:": source(3, 'X = 1  # @param {type:"integer"}'),
    "links: `03_deploy.ipynb` is relative": lambda n: n["cells"][4].update(
        source="## Connect\n\nSee [the next](03_deploy.ipynb)."
    ),
    "links: there is no notebooks/gone.ipynb": lambda n: n["cells"][4].update(
        source="".join(n["cells"][0]["source"])
        .split("](")[2]
        .split(")")[0]
        .join(["## Connect\n\n[gone](", ")"])
        .replace("02_train", "gone")
    ),
    "code cells; at most 15": lambda n: n["cells"].extend([code(n, 3)] * 15),
}


@pytest.mark.parametrize("rule", BREACHES)
def test_every_rule_catches_its_breach(scripts, copy, rule):
    path = copy / "notebooks" / "02_train.ipynb"
    check = scripts["lint_notebooks"].check_notebook
    assert list(check(path, copy)) == []
    change(path, BREACHES[rule])
    assert any(rule in breach for breach in check(path, copy)), list(check(path, copy))


@pytest.mark.parametrize(
    "line",
    [
        'A = ""  # @param {type:"string", placeholder:"a name"}',
        'A = 1  # @param {type:"integer", min:1}',
        'A = 1  # @param {"type":"number"}',
        'A = -1.5  # @param {type:"slider", min:-2, max:0, step:0.5}',
        'A = True  # @param {type:"boolean"}',
        'A = "2026-08-01"  # @param {type:"date"}',
        'A = (1, "a")  # @param {type:"raw"}',
        'A = "b"  # @param ["a", "b"]',
        'A = "other"  # @param ["a", "b"] {allow-input: true}',
        'A = 2  # @param [1, 2] {type:"raw"}',
        'A = True  # @param ["False", "True"] {type:"raw"}',
    ],
)
def test_colabs_form_syntax_is_known(scripts, line):
    assert scripts["forms"].breach(line) == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A = 1", "write `NAME"),
        ("A = 1  # @param", "write `NAME"),
        ('a = 1  # @param {type:"integer"}', "write `NAME"),
        ('A = b  # @param {type:"integer"}', "must be literals"),
        ('A = 1.5  # @param {type:"integer"}', "1.5 is no integer"),
        ('A = True  # @param {type:"integer"}', "True is no integer"),
        ('A = 1  # @param {type:"string"}', "1 is no string"),
        ('A = 1  # @param {type:"boolean"}', "1 is no boolean"),
        ('A = 1  # @param {type:"whole"}', "is none of"),
        ('A = 1  # @param {type:"integer", most:3}', "no option most"),
        ('A = 1  # @param {type:"integer" min 3}', "can't read the options"),
        ('A = 0  # @param {type:"integer", min:1}', "outside 1 to inf"),
        ('A = 0  # @param {"type":"integer","min":1}', "outside 1 to inf"),
        ("A = 0  # @param {'type': 'number', 'min': 1e-3}", "outside 0.001 to inf"),
        ('A = 9  # @param {"type": "slider", "min": "0", "max": "5"}', "outside 0 to 5"),
        ('A = 9  # @param {"type":"integer","max":8}', "outside -inf to 8"),
        ('A = 1  # @param {type:"slider", min:0}', "needs min and max"),
        ('A = 9  # @param {type:"slider", min:0, max:5, step:1}', "outside 0 to 5"),
        ('A = "1.8.2026"  # @param {type:"date"}', "no date"),
        ('A = "c"  # @param ["a", "b"]', "not among"),
        ('A = 3  # @param [1, 2] {type:"raw"}', "not among"),
        ('A = "a"  # @param ["a"] {type:"date"}', "a dropdown is"),
        ('A = "a"  # @param ["a"] {min:1}', "no option min"),
    ],
)
def test_what_colab_would_not_draw_is_named(scripts, line, said):
    assert said in scripts["forms"].breach(line)


def test_the_repository_keeps_its_own_rules(scripts, capsys):
    for name in ("links", "generate_notebooks", "lint_notebooks"):
        arguments = [] if name == "lint_notebooks" else ["--check"]
        assert scripts[name].main(arguments) == 0, capsys.readouterr().out


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('version = "0.1.0"', 'version = "0.2.0"', "v0.2.0"),
        ("https://github.com/OWNER", "https://github.com/someone", "/github/someone/"),
    ],
)
def test_links_follow_pyproject(scripts, copy, capsys, old, new, named):
    links = scripts["links"]
    assert links.main(["--check"], copy) == 0
    project = copy / "pyproject.toml"
    project.write_text(project.read_text().replace(old, new))
    before = (copy / "README.md").read_text()
    assert links.main(["--check"], copy) == 1
    said = capsys.readouterr().out
    for name in ("README.md", "notebooks/quickstart.ipynb", "notebooks/03_deploy.ipynb"):
        assert f"{name}: differs" in said
    assert (copy / "README.md").read_text() == before
    links.main([], copy)
    assert links.main(["--check"], copy) == 0
    assert named in (copy / "README.md").read_text()
    assert named in (copy / "notebooks" / "03_deploy.ipynb").read_text()
    scripts["generate_notebooks"].main([], copy)
    assert links.main(["--check"], copy) == 0


def test_the_runtime_that_notebooks_ask_for_follows_pyproject(scripts, copy):
    project = copy / "pyproject.toml"
    project.write_text(
        re.sub('runtime_version = ".*"', 'runtime_version = "x"', project.read_text())
    )
    scripts["links"].main([], copy)
    scripts["generate_notebooks"].main([], copy)
    for path in scripts["links"].notebooks(copy):
        asked = json.loads(path.read_text())["metadata"]["colab"]["runtime_attributes"]
        assert asked == {"runtime_version": "x"}, path.name


def test_a_relative_link_becomes_one_that_colab_opens(scripts, copy):
    path = copy / "notebooks" / "more" / "migrate_tensorflow_cloud.ipynb"
    text = "## More\n\n[a](../01_prototype.ipynb) [b](../../README.md) [c](https://example.org)"
    change(path, lambda notebook: notebook["cells"][1].update(source=text))
    scripts["links"].main([], copy)
    written = path.read_text()
    about = scripts["links"].project(copy)
    assert f"({scripts['links'].colab(about, 'notebooks/01_prototype.ipynb')})" in written
    assert f"({about['repository']}/blob/{about['tag']}/README.md)" in written
    assert "(https://example.org)" in written


def test_a_release_needs_a_real_address(scripts, copy, capsys):
    links = scripts["links"]
    project = copy / "pyproject.toml"
    project.write_text(re.sub("github.com/[^/]+/", "github.com/OWNER/", project.read_text()))
    links.main([], copy)
    assert links.main(["--check"], copy) == 0
    assert links.main(["--release"], copy) == 1
    assert "is a placeholder" in capsys.readouterr().out
    project.write_text(project.read_text().replace("OWNER", "someone"))
    assert links.main(["--release"], copy) == 1
    assert "README.md: differs" in capsys.readouterr().out
    links.main([], copy)
    assert links.main(["--release"], copy) == 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("## Follow it\n\nText.", "each snippet begins with"),
        ("# Follow it\n\n# Twice", "each snippet begins with"),
        ("Text.\n\n# Follow it", "each snippet begins with"),
    ],
)
def test_each_snippet_has_one_title_that_colab_searches(scripts, copy, text, said):
    path, check = copy / "notebooks" / "snippets.ipynb", scripts["lint_notebooks"].check_notebook
    assert list(check(path, copy)) == []
    change(path, lambda n: n["cells"][5].update(cell_type="markdown", source=text))
    assert any(said in breach for breach in check(path, copy))


@pytest.mark.parametrize("name", ["00_setup", "01_prototype", "02_train", "quickstart"])
def test_a_form_has_eight_fields_at_most_and_explains_each(scripts, copy, name):
    path, check = copy / "notebooks" / f"{name}.ipynb", scripts["lint_notebooks"].check_notebook
    lines = code(json.loads(path.read_text()), 1)["source"]
    lines = "".join(lines).splitlines()
    fields = [n for n, line in enumerate(lines) if "# @param" in line]
    assert 1 < len(fields) <= 8
    assert all(re.match(r"# @markdown \w|# @markdown `", lines[n - 1]) for n in fields)
    assert list(check(path, copy)) == []
    field = '# @markdown One more.\nMORE_OF_IT = 1  # @param {type:"integer"}\n' * 8
    change(path, form("# @title Parameters\n", f"# @title Parameters\n{field}"))
    assert any("fields; at most 8" in breach for breach in check(path, copy))
    shutil.copy(ROOT / "notebooks" / path.name, path)
    change(path, form(lines[fields[0] - 1] + "\n", ""))
    assert any("say above it what it is" in breach for breach in check(path, copy))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("A = 1  # how many", ""),
        ("A = [1, 2]  # which", ""),
        ("A = 1", "what it is"),
        ("A = 1  # @param {}", "what it is"),
        ("a = 1  # how many", "what it is"),
        ("A = b  # how many", "must be a literal"),
    ],
)
def test_what_is_no_field_is_explained_behind_it(scripts, line, said):
    breach = scripts["forms"].breach_below(line)
    assert said in breach
    assert bool(said) == bool(breach)


def test_quickstart_follows_its_sources(scripts, copy, capsys):
    generate = scripts["generate_notebooks"]
    assert generate.main(["--check"], copy) == 0
    change(
        copy / "notebooks" / "03_deploy.ipynb",
        form("TRAFFIC_PERCENT = 10", "TRAFFIC_PERCENT = 50"),
    )
    assert generate.main(["--check"], copy) == 1
    said = capsys.readouterr().out
    assert "quickstart.ipynb: differs" in said
    assert "snippets.ipynb: differs" in said
    generate.main([], copy)
    assert generate.main(["--check"], copy) == 0
    assert "TRAFFIC_PERCENT = 50" in (copy / "notebooks" / "quickstart.ipynb").read_text()


def test_quickstart_defines_every_name_before_it_is_used():
    cells = nbformat.read(ROOT / "notebooks" / "quickstart.ipynb", as_version=4).cells
    known = set(dir(__builtins__)) if not isinstance(__builtins__, dict) else set(__builtins__)
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        nodes = list(ast.walk(ast.parse(cell.source)))
        for node in nodes:
            if isinstance(node, ast.Import | ast.ImportFrom):
                known |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                known.add(node.id)
        used = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        assert used <= known, cell.source


# The bootstrap cell, run as a script in a process of its own.

COLAB = """
import importlib, subprocess, sys, types
sys.modules["google.colab"] = types.ModuleType("google.colab")
asked = []
def pip(command):
    asked.append(command)
    sys.path.append(SITE)
    return ""
subprocess.getoutput = pip
{cell}
print("ASKED", asked)
"""


def boot(scripts, folder: Path, *paths: Path, colab: str = ""):
    """Run the cell in `folder` with nothing on the path but `paths`; `colab` is what pip brings."""
    links = scripts["links"]
    code = links.bootstrap(links.project())
    code = COLAB.format(cell=code).replace("SITE", repr(colab)) if colab else code
    code = f"import sys\nsys.path[:] = [''] + {[str(p) for p in paths]} + sys.path[1:]\n{code}"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    return subprocess.run(  # -S: without this environment's own packages
        [sys.executable, "-S", "-c", code],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def install(folder: Path, version: str = "0.1.0") -> Path:
    """What a wheel of this package leaves in a site-packages folder."""
    package = folder / "helpers"
    package.mkdir(parents=True)
    for name in ("__init__.py", "notebooks.py"):
        (package / name).touch()
    shutil.copytree(ROOT / "colab_to_cloud", folder / "colab_to_cloud")
    about = folder / f"colab_to_cloud-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Name: colab-to-cloud\nVersion: {version}\n")
    return folder


def test_bootstrap_is_a_titled_form_of_six_lines(scripts):
    cell = scripts["links"].bootstrap(scripts["links"].project())
    assert cell.startswith("# @title Install colab-to-cloud")
    assert len(cell.splitlines()) <= 6
    for path in scripts["links"].notebooks():
        for found in nbformat.read(path, as_version=4).cells:
            if "bootstrap" in found.metadata.get("tags", []):
                assert (found.source, found.metadata["cellView"]) == (cell, "form")


@pytest.mark.parametrize("place", [".", "notebooks", "notebooks/more"])
def test_bootstrap_finds_a_checkout_from_its_folders(scripts, tmp_path, place):
    install(tmp_path)
    (tmp_path / "notebooks" / "more").mkdir(parents=True)
    done = boot(scripts, tmp_path / place)
    assert done.returncode == 0, done.stderr
    assert Path(tmp_path / place, done.stdout.split(" in ")[1].strip()).resolve() == tmp_path
    assert len(done.stdout.splitlines()) == 1


def test_bootstrap_finds_an_installed_wheel_from_an_empty_folder(scripts, tmp_path):
    (tmp_path / "empty").mkdir()
    done = boot(scripts, tmp_path / "empty", install(tmp_path / "site"))
    assert done.stdout == f"colab-to-cloud 0.1.0 is ready, in {tmp_path / 'site'}\n", done.stderr


def test_bootstrap_refuses_foreign_helpers_with_both_paths(scripts, tmp_path):
    foreign = tmp_path / "work" / "helpers"
    foreign.mkdir(parents=True)
    (foreign / "__init__.py").write_text("raise SystemExit('imported')")
    done = boot(scripts, tmp_path / "work", install(tmp_path / "site"))
    last = done.stderr.strip().splitlines()[-1]
    assert "ImportError" in last
    assert str(foreign) in last
    assert str(tmp_path / "site") in last


def test_bootstrap_says_what_to_install(scripts, tmp_path):
    (tmp_path / "a" / "b").mkdir(parents=True)
    done = boot(scripts, tmp_path / "a" / "b")
    last = done.stderr.strip().splitlines()[-1]
    assert "pip install -q 'colab-to-cloud[local] @ git+https://" in last


@pytest.mark.parametrize("there", [True, False])
def test_bootstrap_in_colab_installs_this_release_once(scripts, tmp_path, there):
    (tmp_path / "content").mkdir()
    site = install(tmp_path / "site")
    paths = [site] if there else []
    done = boot(scripts, tmp_path / "content", *paths, colab=str(site))
    assert done.returncode == 0, done.stderr
    ready, asked = done.stdout.splitlines()
    assert ready == f"colab-to-cloud 0.1.0 is ready, in {site}"
    assert asked.count("-m pip install -q 'colab-to-cloud[local] @ git+https://") == 1 - there


def test_bootstrap_names_another_release(scripts, tmp_path):
    (tmp_path / "empty").mkdir()
    done = boot(scripts, tmp_path / "empty", install(tmp_path / "site", "0.0.9"))
    last = done.stderr.strip().splitlines()[-1]
    assert "colab-to-cloud 0.0.9 is in" in last
    assert "needs 0.1.0" in last


def test_bootstrap_shows_pips_own_reason(scripts, tmp_path):
    """An address where nobody answers."""
    links = scripts["links"]
    about = links.project() | {"repository": "https://127.0.0.1:1/nobody/nothing"}
    code = 'import sys, types\nsys.modules["google.colab"] = types.ModuleType("google.colab")\n'
    # only the search is closed to this environment's own packages; pip is one of them
    closed = "import importlib.util\nimportlib.util.find_spec = lambda name: None\n"
    done = subprocess.run(
        [sys.executable, "-c", code + closed + links.bootstrap(about)],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "unable to access 'https://127.0.0.1:1/nobody/nothing" in done.stderr


# The drive


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("EPOCHS=0", "1 or more"),
        ("EPOCHS=ten", "'ten'"),
        ("EPOCH=2", "EPOCHS"),
        ("EPOCHS", "EPOCHS=2"),
    ],
)
def test_the_drive_refuses_bad_arguments_before_it_starts(scripts, argument, said, capsys):
    assert scripts["road"].main([argument]) == 2
    assert said in capsys.readouterr().err
