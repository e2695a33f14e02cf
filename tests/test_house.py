"""The import rules of the house bite: a wall broken on purpose makes `make lint` fail."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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
    ],
)
def test_a_broken_wall_is_named(house, file, line, rule):
    path = house / "helpers" / file
    path.write_text(f"{path.read_text()}\n{line}\n")
    ran = checked(house)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    broken = [text for text in ran.stdout.splitlines() if text.endswith(" BROKEN")]
    assert any(text.startswith(rule) for text in broken), ran.stdout
