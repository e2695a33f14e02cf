"""docs/fidelity.md names what is installed and what the tests call, and nothing else."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "fidelity.md").read_text()


def test_the_versions_are_the_locked_ones():
    lock = dict(re.findall(r"(?m)^([\w-]+)==(\S+)", (ROOT / "requirements.lock").read_text()))
    stated = dict(re.findall(r"(?m)^\| (google-[\w-]+) \| (\S+) \|", TEXT))
    assert len(stated) == 4
    assert stated == {name: lock[name] for name in stated}


@pytest.mark.parametrize(
    ("part", "files"),
    {
        "google-cloud-aiplatform": ["test_sdk.py", "test_batch.py"],
        "google-cloud-storage": ["test_sdk_storage.py", "test_sdk_objects.py"],
    }.items(),
)
def test_every_call_named_is_made_in_a_test(part, files):
    section = TEXT.split(f"\n## {part}\n")[1].split("\n## ")[0]
    rows = re.findall(r"(?m)^\| `\w+` \| (.+) \|$", section)
    named = {name.removesuffix("()") for row in rows for name in re.findall(r"`([\w()]+)`", row)}
    assert len(named) > 20
    made = "".join((ROOT / "tests" / "emulator" / name).read_text() for name in files)
    assert not {name for name in named if not re.search(rf"\.{name}\b", made)}
