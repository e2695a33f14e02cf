"""What `pip install` gives: the package and the template notebooks, without a checkout."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.test_new import customers, make

ROOT = Path(__file__).parents[1]
RUN = """
import sys, helpers
print(helpers.__file__)
assert helpers.read_parameters("01_prototype.ipynb")["EPOCHS"] > 1
helpers.run_notebook(sys.argv[1], "done.ipynb", {"EPOCHS": 1} if len(sys.argv) > 2 else None)
"""

# A stand-in of google.colab for every Python of a VM; it leaves a file each time.
COLAB = """
import os, pathlib, sys, types
def asked(**_):
    raise SystemExit("asked to sign in")
sys.modules["google.colab"] = colab = types.ModuleType("google.colab")
colab.auth = types.SimpleNamespace(authenticate_user=asked)
pathlib.Path(__file__).with_name(f"{os.getpid()}.python").touch()
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the installed wheel."""
    folder = tmp_path_factory.mktemp("package")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = ["wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT]
    subprocess.run([*pip, *build], check=True, timeout=120)
    wheel = next(folder.glob("*.whl"))
    site = folder / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", site, wheel], check=True, timeout=120)
    return site


def test_the_wheel_holds_helpers_and_templates_and_no_more(installed):
    names = zipfile.ZipFile(next(installed.parent.glob("*.whl"))).namelist()
    assert "helpers/templates/quickstart.ipynb" in names
    assert "helpers/emulator/README.md" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"helpers", "colab_to_cloud"}
    assert not [name for name in names if name.endswith((".pyc", ".json", ".pem"))]


@pytest.mark.soak
@pytest.mark.parametrize(
    ("notebook", "epochs"),
    [
        ("00_setup.ipynb", []),
        ("01_prototype.ipynb", ["1"]),
        ("02_train.ipynb", ["1"]),
        ("03_deploy.ipynb", []),
        ("04_predict.ipynb", []),
        ("quickstart.ipynb", ["1"]),
    ],
)
def test_each_notebook_runs_in_an_empty_folder(installed, tmp_path, notebook, epochs):
    """A fresh process, a fresh state folder, nothing around it."""
    work, state = tmp_path / "work", tmp_path / "state"
    work.mkdir()
    environment = os.environ | {"PYTHONPATH": str(installed), "LOCAL_CLOUD_DIR": str(state)}
    command = [sys.executable, "-c", RUN, notebook, *epochs]
    done = subprocess.run(
        command, cwd=work, env=environment, capture_output=True, text=True, timeout=300
    )
    stop = [sys.executable, "-m", "helpers.emulator", "stop", "--state", state]
    subprocess.run(stop, cwd=work, env=environment, check=True, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(installed / "helpers" / "__init__.py")
    assert (work / "done.html").is_file()


def test_in_colab_the_local_cloud_outlives_the_kernel(installed, tmp_path):
    """A VM with /content as working directory, its state there; nobody is asked to sign in."""
    vm, content = tmp_path / "vm", tmp_path / "content"
    vm.mkdir()
    (vm / "sitecustomize.py").write_text(COLAB)
    content.mkdir()
    path = os.pathsep.join(map(str, [installed, vm]))
    environment = {k: v for k, v in os.environ.items() if k != "LOCAL_CLOUD_DIR"}
    environment["PYTHONPATH"] = path
    about = {"cwd": content, "env": environment, "capture_output": True, "text": True}
    cloud, state = [sys.executable, "-m", "helpers.emulator"], content / ".local-cloud"
    try:
        run = [sys.executable, "-c", RUN, "00_setup.ipynb"]
        done = subprocess.run(run, timeout=120, check=False, **about)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == str(installed / "helpers" / "__init__.py")
        assert (content / "done.html").is_file()
        assert len(list(vm.glob("*.python"))) > 1  # the runner's, the kernel's
        assert "nothing to do" in (content / "done.ipynb").read_text()
        status = subprocess.run([*cloud, "status", "--state", state], timeout=60, **about)
        assert status.returncode == 0, status.stderr
        pid = json.loads((state / "emulator.json").read_text())["pid"]
        assert os.getsid(pid) == pid  # a signal to the kernel's group does not reach it
    finally:
        subprocess.run([*cloud, "stop", "--state", state], check=True, timeout=60, **about)


def test_requirements_say_the_same_in_both_places():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = {*project["dependencies"], *extras["local"], *extras["tensorflow"]}
    lines = {line for line in (ROOT / "requirements.txt").read_text().splitlines() if line}
    assert {requirement.partition(",<")[0] for requirement in wanted} <= {
        line.partition(",<")[0] for line in lines
    }


def test_the_lock_names_no_host_and_no_path():
    text = (ROOT / "requirements.lock").read_text()
    assert "://" not in text
    assert "file:" not in text
    assert "--index" not in text


@pytest.mark.long
def test_a_new_project_is_made_and_passes_its_test_without_a_checkout(installed, tmp_path):
    customers().to_csv(tmp_path / "customers.csv", index=False)
    command = [sys.executable, "-m", "helpers.new", "churn", "--data", "customers.csv"]
    path = {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [*command, "--target", "churned"],
        cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "churn"
    made = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"Makefile", "run.py", "notebooks.yml", "customers.csv", "04_predict.ipynb"} <= made
    assert "git+https://" in (folder / "requirements.txt").read_text()
    assert "04_predict" in make(folder, "test", **path)
    left = folder / "outputs" / "test"
    assert 'tests="4" failures="0"' in (left / "junit.xml").read_text()
    assert (left / "index.html").is_file()
    assert not (folder / ".local-cloud").exists()
    again = subprocess.run(
        [*command, "--target", "churned"],
        cwd=tmp_path, env=os.environ | path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert again.returncode == 2
    assert "exists, and nothing is overwritten" in again.stderr
    assert "Traceback" not in again.stderr
