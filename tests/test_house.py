"""The import rules of the house bite: a wall broken on purpose makes `make lint` fail."""

import ast
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.cloud import images

ROOT = Path(__file__).parents[1]


@pytest.fixture
def house(tmp_path) -> Path:
    """A copy of the package and its rules."""
    copied = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "helpers", tmp_path / "helpers", ignore=copied)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def checked(house: Path) -> subprocess.CompletedProcess:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    return subprocess.run(command, cwd=house, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "line", "rule"),
    [
        ("inputs/table.py", "import tensorflow", "TensorFlow is imported by learning"),
        ("inputs/schema.py", "import helpers.training", "Each stage uses those before it"),
        ("training.py", "import helpers.endpoints", "Each stage uses those before it"),
        ("errors.py", "import helpers.cloud.client", "Each stage uses those before it"),
        ("registry.py", "import helpers.emulator", "Nothing but cloud.local"),
        ("emulator/state.py", "import helpers.errors", "The local cloud knows nothing"),
        ("looks/plots.py", "import helpers.cloud.jobs", "Inputs and looks know no cloud"),
        ("cloud/client.py", "import helpers.cloud.storage", "No circles"),
        ("cells/code.py", "import helpers.project.bills", "What runs in a job"),
    ],
)
def test_a_broken_wall_is_named(house, file, line, rule):
    path = house / "helpers" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    ran = checked(house)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    broken = [text for text in ran.stdout.splitlines() if text.endswith(" BROKEN")]
    assert any(text.startswith(rule) for text in broken), ran.stdout


def functions(path: Path) -> list[tuple[int, str]]:
    """How many lines each function of a file has."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds)]
    return [(node.end_lineno - node.lineno + 1, f"{path.name} {node.name}") for node in found]


def test_a_stage_a_function_a_module_of_the_local_cloud_stays_short():
    package = ROOT / "helpers"
    stages = {path.name: len(path.read_text().splitlines()) for path in package.glob("*.py")}
    assert max(stages.values()) <= 200, stages
    assert sum(stages.values()) <= 1600, stages
    every = list(package.rglob("*.py"))
    assert max(entry for path in every for entry in functions(path))[0] <= 60
    modules = [path for path in every if "emulator" in path.parts]
    assert max(len(path.read_text().splitlines()) for path in modules) <= 450


def test_what_a_job_imports_is_in_its_image():
    packed = {path.partition("/")[2] for path in images.environment_files()}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    contract = next(c for c in contracts["contracts"] if c["name"].startswith("What runs in a job"))
    places = {name.removeprefix("helpers.") for name in contract["source_modules"]}
    assert {path.partition("/")[0].removesuffix(".py") for path in packed if path} >= places
