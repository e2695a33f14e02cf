"""What a job's image is made of, known before anything is built."""

import json
import sys
from importlib import metadata

import pytest

import helpers
from helpers.cloud import images, packages
from helpers.errors import SettingError
from tests.test_train import SMALL, notebook


def test_the_image_has_the_author_s_python_and_what_runs_here_hash_locked():
    files = {name: content.decode() for name, content in images.environment_files().items()}
    python = ".".join(map(str, sys.version_info[:2]))
    assert files["Dockerfile"].startswith(f"FROM mirror.gcr.io/library/python:{python}-slim\n")
    assert "--no-deps --only-binary=:all: -r requirements.txt" in files["Dockerfile"]
    lines = files["requirements.txt"].splitlines()
    for name in ("pandas", "papermill", "keras", "ipykernel"):
        assert any(line.startswith(f"{name}=={metadata.version(name)} ") for line in lines), name
    assert sum(line.startswith(("tensorflow==", "tensorflow-cpu==")) for line in lines) == 1
    assert not any(line.startswith("colab-to-cloud") for line in lines)
    known = packages.hashes()
    for line in lines:
        pin, *digests = line.split()
        assert [digest.removeprefix("--hash=") for digest in digests] == known[pin]


def test_what_is_installed_beside_the_lock_is_pinned_without_hashes(monkeypatch):
    known = packages.hashes()
    monkeypatch.setattr(packages, "hashes", lambda: {k: v for k, v in known.items() if k[0] != "p"})
    lines = packages.requirements().splitlines()
    assert f"pandas=={metadata.version('pandas')}" in lines  # pip takes hashes for all or none
    assert not [line for line in lines if "--hash" in line]


def test_an_accelerator_brings_the_libraries_of_the_gpu_and_changes_nothing_else():
    plain, gpu = images.environment_files(), images.environment_files("NVIDIA_TESLA_T4")
    version = packages.tensorflow_version()
    install = f"-c pinned.txt tensorflow[and-cuda]=={version}\n".encode()
    assert install in gpu["Dockerfile"]
    assert install not in plain["Dockerfile"]
    pinned = gpu["pinned.txt"].decode().splitlines()
    assert f"tensorflow=={version}" in pinned
    others = [line.split()[0] for line in plain["requirements.txt"].decode().splitlines()]
    either = {line for line in (*pinned, *others) if line.startswith("tensorflow")}
    assert set(pinned) - either == set(others) - either


@pytest.mark.parametrize(("python", "fits"), [((3, 10), False), ((3, 11), True), ((3, 13), True),
                                              ((3, 14), False)])  # fmt: skip
def test_a_python_without_tensorflow_is_refused(monkeypatch, python, fits):
    monkeypatch.setattr(sys, "version_info", (*python, 0, "final", 0))
    if fits:
        assert packages.python_version() == ".".join(map(str, python))
    else:
        with pytest.raises(SettingError, match=r"This is Python 3.1\d; .* needs 3.11 to 3.13"):
            images.environment_files()


class Origin(metadata.PathDistribution):
    """A package that came to this machine in another way."""

    files_of: dict = {}

    def read_text(self, name):
        return self.files_of.get(name)


ORIGINS = {
    "a folder": ({"direct_url.json": json.dumps({"url": "file:///home/me/pandas"})}, True),
    "a repository": ({"direct_url.json": json.dumps({"url": "https://x.org/p.git"})}, True),
    "a compiler": ({"WHEEL": "Tag: cp311-cp311-linux_x86_64\n", "INSTALLER": "pip\n"}, True),
    "conda": ({"WHEEL": "Tag: cp311-cp311-linux_x86_64\n", "INSTALLER": "conda\n"}, False),
    "an index": ({"WHEEL": "Tag: cp311-cp311-manylinux_2_17_x86_64\n"}, False),
    "an index, for a Mac": ({"WHEEL": "Tag: cp311-cp311-macosx_11_0_arm64\n"}, False),
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_what_no_index_has_is_found_before_a_build(monkeypatch, origin):
    files, refused = ORIGINS[origin]
    real = metadata.distribution

    def distribution(name):
        found = real(name)
        if name != "pandas":
            return found
        made = Origin(found._path)
        text = {"METADATA": found.read_text("METADATA")}
        made.files_of = text | files
        return made

    monkeypatch.setattr(metadata, "distribution", distribution)
    if refused:
        with pytest.raises(SettingError, match=r"pandas \d.*the image of a job installs wheels"):
            packages.requirements()
    else:
        assert "pandas==" in packages.requirements()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("numpydoc @ file:///croot/numpydoc_1668085905352/work", "is a file of this machine"),
        ("-e .", "is a file of this machine"),
        ("../lib/mine-1.0-py3-none-any.whl", "is a file of this machine"),
        ("/home/me/mine", "is a file of this machine"),
        ("file:///home/me/mine.whl", "is a file of this machine"),
        ("not a requirement!", "is no requirement"),
    ],
)
def test_a_requirement_of_this_machine_alone_is_refused_before_anything_is_made(
    session, tmp_path, line, said
):
    (tmp_path / "more.txt").write_text(f"# more\nsix\n{line}\n")
    path = notebook(tmp_path, "small.ipynb", SMALL)
    with pytest.raises(SettingError, match=said):
        helpers.train(session, str(path), requirements=str(tmp_path / "more.txt"))


@pytest.mark.parametrize(
    "line",
    ["numpydoc==1.8.0", "x[y]>=1; python_version > '3.9'", "git+https://x.org/p.git", "", "# no",
     "p @ git+https://x.org/p.git", "--extra-index-url https://x.org", "six==1 --hash=sha256:0"],
)  # fmt: skip
def test_what_an_index_or_a_repository_has_is_taken(line):
    packages.check_requirements(f"{line}\n", "requirements.txt")
