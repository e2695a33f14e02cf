"""What `pip install` gives: the package and the template notebooks, without a checkout."""

import json
import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUN = """
import sys, helpers
print(helpers.__file__)
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


@pytest.mark.parametrize(
    ("notebook", "epochs"),
    [
        ("00_setup.ipynb", []),
        pytest.param("04_predict.ipynb", [], marks=pytest.mark.long),
        *(
            pytest.param(f"{name}.ipynb", epochs, marks=pytest.mark.soak)
            for name, epochs in [
                ("01_prototype", ["1"]),
                ("02_train", ["1"]),
                ("03_deploy", []),
                ("quickstart", ["1"]),
            ]
        ),
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


def test_a_new_project_is_made_without_a_checkout(installed, tmp_path):
    rows = "".join(f"{size % 9},{3 * size + 1}\n" for size in range(40))
    (tmp_path / "rooms.csv").write_text("size,price\n" + rows)
    command = [sys.executable, "-m", "helpers.new", "rooms", "--data", "rooms.csv"]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    done = subprocess.run(
        [*command, "--target", "price"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "rooms").rglob("*") if path.is_file()}
    assert {"Makefile", "run.py", "notebooks.yml", "rooms.csv", "04_predict.ipynb"} <= made
    assert "git+https://" in (tmp_path / "rooms" / "requirements.txt").read_text()
