"""Write badges, clone commands, bootstraps and Colab's runtime as pyproject.toml has them.

python .ci/links.py             write them
python .ci/links.py --check     exit 1 and name the files that differ
python .ci/links.py --release   the same, and refuse an address that is a placeholder
"""

import posixpath
import re
import sys
import tomllib
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[1]
PLACEHOLDER = "OWNER"
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
# In Colab install this very release, or say why pip could not; elsewhere say how one would. What it
# finds is looked at by colab_to_cloud/__main__.py, before anything of `helpers` runs.
BOOTSTRAP = """\
# @title Install {name} {version}: half a minute in Colab, nothing elsewhere
import runpy, subprocess, sys; from importlib.util import find_spec; {path}
how = f"{{sys.executable}} -m pip install -q '{name}[local] @ git+{repository}@{tag}'"
if "google.colab" in sys.modules and not find_spec("{module}"):
    how = subprocess.getoutput(how)  # what pip says, or nothing
assert find_spec("{module}") and runpy.run_module("{module}", {{"wanted": "{version}"}}), how
"""
BOOTSTRAP_METADATA = {"cellView": "form", "tags": ["bootstrap"]}


def project(root: Path = ROOT) -> dict[str, str]:
    """Name, version, tag and repository address of this project, and Colab's runtime for it."""
    settings = tomllib.loads((root / "pyproject.toml").read_text())
    about = settings["project"]
    return {
        "name": about["name"],
        "version": about["version"],
        "tag": f"v{about['version']}",
        "repository": about["urls"]["Repository"].rstrip("/"),
        "runtime": settings["tool"]["colab"]["runtime_version"],
    }


def colab_metadata(about: dict[str, str]) -> dict:
    """What a notebook says to Colab."""
    return {"provenance": [], "runtime_attributes": {"runtime_version": about["runtime"]}}


def colab(about: dict[str, str], path: str) -> str:
    """The address that opens a file of the repository, at its tag, in Colab."""
    owner = about["repository"].removeprefix("https://github.com/")
    return f"https://colab.research.google.com/github/{owner}/blob/{about['tag']}/{path}"


def github(about: dict[str, str], path: str) -> str:
    """The page of a file of the repository, at its tag."""
    return f"{about['repository']}/blob/{about['tag']}/{path}"


def raw(about: dict[str, str], path: str) -> str:
    """The file itself, at its tag: what a picture's address must be."""
    owner = about["repository"].removeprefix("https://github.com/")
    return f"https://raw.githubusercontent.com/{owner}/{about['tag']}/{path}"


def places(address: str, about: dict[str, str]) -> list[str]:
    """The file of this repository that an address opens, if it is one: [path] or []."""
    starts = (colab(about, ""), github(about, ""), raw(about, ""))
    return [address.removeprefix(start) for start in starts if address.startswith(start)]


def _absolute(target: str, folder: str, about: dict[str, str]) -> str:
    """The address of a link: relative ones by the badge's rule, notebooks in Colab."""
    if re.match(r"https?://|#|mailto:", target):
        return target
    path = posixpath.normpath(posixpath.join(folder, target))
    kinds = {".ipynb": colab, ".svg": raw, ".png": raw}
    return kinds.get(posixpath.splitext(path)[1], github)(about, path)


def bootstrap(about: dict[str, str]) -> str:
    """The cell that finds or installs the package."""
    module = about["name"].replace("-", "_")
    path = 'sys.path += ["..", "../.."]  # noqa: I001 # fmt: skip'
    return BOOTSTRAP.format(module=module, path=path, **about).rstrip("\n")


def notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the project."""
    return sorted([*root.glob("notebooks/*.ipynb"), *root.glob("notebooks/more/*.ipynb")])


def link_notebook(text: str, path: str, about: dict[str, str]) -> str:
    """A notebook's JSON with its own badge, runtime and the bootstrap cell of this release."""
    notebook = nbformat.reads(text, as_version=4)
    notebook.metadata["colab"] = colab_metadata(about)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = re.sub(
                r"\[!\[Open In Colab\]\([^)]*\)\]\([^)]*\)",
                f"[![Open In Colab]({BADGE})]({colab(about, path)})",
                cell.source,
            )
            cell.source = re.sub(
                r"\]\(([^)\s]+)\)",
                lambda match: f"]({_absolute(match[1], posixpath.dirname(path), about)})",
                cell.source,
            )
        elif "bootstrap" in cell.metadata.get("tags", []):
            cell.source = bootstrap(about)
            cell.metadata.update(BOOTSTRAP_METADATA)
    return nbformat.writes(notebook) + "\n"


def link_page(text: str, about: dict[str, str]) -> str:
    """A Markdown page with this project's addresses and tag."""
    text = re.sub(
        r"https://colab\.research\.google\.com/github/[^/\s]+/[^/\s]+/blob/[^/\s]+/([^)\s]+)",
        lambda match: colab(about, match[1]),
        text,
    )
    text = re.sub(
        r"git clone \S+ && cd \S+",
        f"git clone {about['repository']} && cd {about['repository'].rsplit('/', 1)[-1]}",
        text,
    )
    return re.sub(
        r'"[\w-]+(\[[\w,]+\]) @ git\+[^"]+"',
        lambda match: f'"{about["name"]}{match[1]} @ git+{about["repository"]}@{about["tag"]}"',
        text,
    )


def main(arguments: list[str], root: Path = ROOT) -> int:
    about, differing = project(root), []
    checking = "--check" in arguments or "--release" in arguments
    for path in [*notebooks(root), root / "README.md", *sorted(root.glob("docs/*.md"))]:
        name, text = path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")
        wanted = (
            link_page(text, about) if path.suffix == ".md" else link_notebook(text, name, about)
        )
        if wanted != text:
            differing.append(name)
            if not checking:
                path.write_text(wanted, encoding="utf-8")
    verb = "differs from pyproject.toml; run `make links`" if checking else "written"
    for name in differing:
        print(f"{name}: {verb}")
    placeholder = "--release" in arguments and f"/{PLACEHOLDER}/" in about["repository"]
    if placeholder:
        print(
            f"pyproject.toml: {about['repository']} is a placeholder; "
            "name the repository there, then `make links notebooks`"
        )
    return int(placeholder or (checking and bool(differing)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
