"""Where things lie on this machine: the project, the package, its notebooks."""

from pathlib import Path

PACKAGE = Path(__file__).parents[1]  # the folder helpers/


def project_root() -> Path:
    """The nearest folder at or above the working one that holds a project, else the working one."""
    here = Path.cwd().resolve()
    for folder in [here, *here.parents]:
        if any((folder / mark).exists() for mark in ("pyproject.toml", ".git", ".local-cloud")):
            return folder
    return here


def templates() -> Path:
    """The notebooks as they came: in a checkout notebooks/, installed inside the package."""
    installed = PACKAGE / "templates"
    return installed if installed.is_dir() else PACKAGE.parent / "notebooks"
