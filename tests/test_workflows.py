"""The CI files parse, and say what their comments say."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
OURS = ROOT / ".github" / "workflows" / "notebooks.yml"
FILES = [OURS, ROOT / "helpers" / "new" / "files" / "notebooks.yml"]


def jobs(path: Path) -> dict:
    return yaml.safe_load(path.read_text())["jobs"]


def uses(job: dict, action: str) -> list[dict]:
    return [step for step in job["steps"] if step.get("uses", "").startswith(f"{action}@")]


@pytest.mark.parametrize("path", FILES, ids=["ours", "theirs"])
def test_every_job_ends_is_cached_and_keeps_its_reports(path):
    text = path.read_text()
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
    assert "secrets." not in text
    for name, job in jobs(path).items():
        assert 0 < job["timeout-minutes"] <= 120, name
        (python,) = uses(job, "actions/setup-python")
        assert python["with"]["cache"] == "pip"
        (kept,) = uses(job, "actions/upload-artifact")
        assert kept["if"] == "always()"
        assert job["steps"][-1] is kept
        assert all(re.fullmatch(r"[\w./-]+@v\d+", s["uses"]) for s in job["steps"] if "uses" in s)


@pytest.mark.parametrize("path", FILES, ids=["ours", "theirs"])
def test_every_make_target_is_there(path):
    makefile = ROOT / "Makefile" if path == OURS else path.parent / "Makefile"
    targets = set(re.findall(r"(?m)^([a-z-]+):", makefile.read_text()))
    steps = [step.get("run", "") for job in jobs(path).values() for step in job["steps"]]
    asked = {name for run in steps for name in re.findall(r"\bmake ([a-z-]+)", run)}
    assert asked
    assert asked <= targets
    files = re.findall(r"notebooks/\w+\.ipynb", "\n".join(steps))
    assert all((ROOT / file).is_file() for file in files)


def test_every_python_of_the_package_is_tried():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", wanted).groups()
    tried = jobs(OURS)["test"]["strategy"]["matrix"]["python"]
    assert tried == [f"3.{minor}" for minor in range(int(low), int(high))]


def test_google_is_off_until_configured_and_keyless():
    google = jobs(OURS)["google"]
    assert "vars.GOOGLE_WORKLOAD_IDENTITY_PROVIDER != ''" in google["if"]
    assert google["permissions"]["id-token"] == "write"
    (sign_in,) = uses(google, "google-github-actions/auth")
    assert "credentials_json" not in sign_in["with"]
    ends = [step for step in google["steps"] if "helpers.cleanup(" in step.get("run", "")]
    assert [step["if"] for step in ends] == ["always()"]


def test_the_newest_versions_are_tried_weekly():
    said = yaml.safe_load(OURS.read_text())
    assert said[True]["schedule"]  # YAML reads `on` as true
    assert "schedule" in said["jobs"]["newest"]["if"]
    assert said["jobs"]["newest"]["strategy"]["matrix"]["versions"] == ["newest", "colab"]
    run = next(s["run"] for s in said["jobs"]["newest"]["steps"] if "run" in s)
    assert "googlecolab/backend-info" in run
