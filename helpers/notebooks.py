"""Find, check, run and keep notebooks: the unit of work everywhere in this project."""

import ast
import contextlib
import hashlib
import json
import math
import os
import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import nbformat

from helpers.cloud import folders as places
from helpers.cloud import storage
from helpers.cloud.client import Session
from helpers.errors import NotebookError, NotFoundError, SettingError, near
from helpers.looks.report import html_report, unrun

SECRET_NAME = re.compile(
    r"(^|_)(token|password|passwd|secret|key|credentials?)s?($|_)", re.IGNORECASE
)
SECRETS = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----[^-]*(-----END [A-Z ]*PRIVATE KEY-----)?",
    "service account key": r"\{?[^{}]*type\W{1,8}service_account[^{}]*\}?",
    "access token": r"\bya29\.[\w-]{20,}",
    "API key": r"\bAIza[\w-]{35}\b",
    "client secret": r"\bGOCSPX-[\w-]{20,}",
}


@dataclass(frozen=True)
class NotebookFile:
    """Which file a name stands for; `sha256` is its first 12 hex digits."""

    path: Path
    name: str
    sha256: str
    origin: str


def find_notebook(name: str | Path, session: Session | None = None) -> NotebookFile:
    """The file a name stands for: beside the working directory, in the project, or installed.

    Args:
        name: a path, a gs:// address (needs `session`) or a template's name.
    Raises:
        NotFoundError: no such notebook; the nearest name is given.
    """
    if str(name).startswith("gs://"):
        if session is None:
            raise SettingError(f"{name} is in a bucket; pass the session that can read it.")
        folder = Path(tempfile.mkdtemp(prefix="notebook-"))
        path = storage.download_file(session, str(name), folder / Path(str(name)).name)
        return _file(path, "from the bucket")
    wanted = Path(name).with_suffix(".ipynb")
    templates = places.templates()
    folders = [Path.cwd(), places.project_root()]
    for kept in (places.project_root() / "notebooks", templates):
        folders += [kept, kept / "more"]
    for folder in folders:
        if (folder / wanted).is_file():
            path = (folder / wanted).resolve()
            known = [f for f in folders[-2:] if (f / path.name).is_file()]
            same = any(_sources(path) == _sources(f / path.name) for f in known)
            return _file(path, "the template as installed" if same else "your edited copy")
    names = {path.name for folder in folders for path in folder.glob("*.ipynb")}
    hint = near(wanted.name, names)
    raise NotFoundError(f'No notebook "{name}" in {Path.cwd()} or among the templates.{hint}')


def read_parameters(path: str | Path) -> dict:
    """Names and default values of a notebook's parameters cell; {} when it has none."""
    return {name: default for name, (default, _) in _declared(path).items()}


def check_parameters(path: str | Path, parameters: dict) -> dict:
    """Parameters as the notebook declares them: its names, its types, its limits.

    Args:
        parameters: values; "10" for a number, 3 for 3.0 and "false" for a boolean are converted.
    Raises:
        SettingError: an unknown name (the nearest is given), or a value that does not fit.
    """
    declared, checked = _declared(path), {}
    for name, value in parameters.items():
        where = f'Parameter "{name}"'
        if SECRET_NAME.search(name):
            raise SettingError(
                f"{where} looks like a secret, and the output keeps parameters. Sign in instead."
            )
        if name not in declared:
            raise SettingError(f"{where} is unknown in {Path(path).name}.{near(name, declared)}")
        default, form = declared[name]
        checked[name] = _convert(where, value, default)
        _check_form(where, checked[name], form)
    return checked


def run_notebook(
    path: str | Path,
    output: str | Path,
    parameters: dict | None = None,
    *,
    report: bool = True,
    cwd: str | Path | None = None,
    log: bool = False,
) -> Path:
    """Run a notebook from top to bottom in a fresh kernel of this interpreter, strictly.

    Args:
        path: a path or a template's name.
        output: where the executed notebook goes; it is kept on failure too.
        parameters: values for its parameters cell (see `check_parameters`).
        report: also write `output` as a page, with the suffix .html.
        cwd: working directory of the kernel; default: this process's.
        log: stream what the cells print.
    Raises:
        SettingError: a parameter does not fit; nothing was run.
        NotebookError: a cell raised or did not run, or a secret was in an output.
    """
    found, output = find_notebook(path), Path(output).resolve()
    parameters = check_parameters(found.path, parameters or {})
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError, execute_notebook

    output.parent.mkdir(parents=True, exist_ok=True)
    name, kept = f"{found.name}.ipynb", f"Executed notebook: {output}"
    failure, cause = "", None
    try:
        execute_notebook(
            str(found.path), str(output), parameters, kernel_name="python3", language="python",
            progress_bar=False, cwd=cwd, kernel_manager_class=_kernel(found.path),
            extra_arguments=["--log-level=ERROR"],
            stdout_file=sys.stdout if log else None, stderr_file=sys.stderr if log else None,
        )  # fmt: skip
    except PapermillExecutionError as error:
        raised = f"{error.ename}: {error.evalue}".strip(": ")
        failure, cause = f"cell {error.exec_count} of {name} raised {raised}", error
    except DeadKernelError as error:
        failure, cause = f"the kernel of {name} died (out of memory, or killed)", error
    executed = _read(output)
    secret = _take_out_secrets(executed, name)
    if secret:
        nbformat.write(executed, output)
    if report:
        html_report(output, output.with_suffix(".html"))
    if secret:
        raise NotebookError(f"{secret} It was taken out of {output}.") from cause
    if failure:
        raise NotebookError(f"{failure}\n{kept}") from cause
    left = unrun(executed)
    if left:
        raise NotebookError(
            f"cell {left[0]} of {name} did not run ({len(left)} in all): an earlier cell ended the "
            f"notebook, as sys.exit() does. Let it raise an error or reach its end.\n{kept}"
        )
    return output


def scan_secrets(path: str | Path, *, state: str | Path | None = None) -> None:
    """Refuse a notebook that shows a secret.

    Args:
        state: the local cloud's state folder, whose token is a secret too; default: this
            project's.
    Raises:
        NotebookError: says which cell and what kind, never the secret itself.
    """
    said = _take_out_secrets(_read(path), Path(path).name, state)
    if said:
        raise NotebookError(f"{said} Remove it there and run the notebook again.")


def save_notebook(session: Session, name: str = "") -> str:
    """Store the notebook being edited in the bucket, without outputs.

    Args:
        name: its file; needed only where the editor does not tell.
    Returns:
        `gs://BUCKET/notebooks/NAME-HASH.ipynb`, which `train` takes.
    Raises:
        SettingError: the editor does not tell which file this is.
        NotebookError: a secret is in it; nothing was stored.
    """
    name, notebook = _being_edited(name)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    said = _take_out_secrets(notebook, name)
    if said:
        raise NotebookError(f"{said} Remove it; nothing was stored.")
    content = nbformat.writes(notebook).encode()
    uri = f"gs://{session.bucket}/notebooks/{Path(name).stem}-{_sha256(content)}.ipynb"
    print(f"Storing {name} (without outputs) in bucket {session.bucket}, {session.location}")
    return storage.write_bytes(session, content, uri)


def _being_edited(name: str) -> tuple[str, nbformat.NotebookNode]:
    if "google.colab" in sys.modules:
        from google.colab import _message

        answer = _message.blocking_request("get_ipynb", request="", timeout_sec=30)
        if not answer:
            raise NotebookError(
                "Colab did not hand over the notebook. Keep its tab open, try again."
            )
        known = answer["ipynb"].get("metadata", {}).get("colab", {}).get("name", "")
        return name or known or "notebook.ipynb", nbformat.from_dict(answer["ipynb"])
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    told = shell.user_ns.get("__vsc_ipynb_file__") if shell else ""
    name = name or told or os.environ.get("JPY_SESSION_NAME", "")
    if not name:
        raise SettingError(
            "This editor does not tell which file the notebook is. "
            'Name it: helpers.save_notebook(session, "01_prototype.ipynb").'
        )
    path = find_notebook(name).path
    return path.name, nbformat.read(path, as_version=4)


def _file(path: Path, origin: str) -> NotebookFile:
    return NotebookFile(path, path.stem, _sha256(path.read_bytes()), origin)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _read(path: str | Path) -> nbformat.NotebookNode:
    try:
        return nbformat.read(path, as_version=4)
    except Exception as error:
        raise NotebookError(f"{path} is not a notebook ({error}).") from error


def _sources(path: Path) -> list[str]:
    return [cell.source for cell in _read(path).cells]


def _declared(path: str | Path) -> dict[str, tuple]:
    """Name -> (default, the rest of its `# @param` comment) of the parameters cell."""
    declared = {}
    for cell in _read(path).cells:
        if "parameters" not in cell.metadata.get("tags", []):
            continue
        lines = cell.source.splitlines()
        for node in ast.parse(cell.source).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                form = lines[node.end_lineno - 1].partition("# @param")[2].strip()
                declared[node.targets[0].id] = (ast.literal_eval(node.value), form)
        break
    return declared


def _convert(where: str, value, default):
    """`value` as the type of `default`, when nothing is lost."""
    kind = type(default)
    value = value.item() if hasattr(value, "item") else value  # NumPy scalars
    if default is None or (type(value) is kind and kind is not float):
        return value
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind is str and (isinstance(value, os.PathLike) or type(value) is int):
        return str(value)
    if kind in (int, float) and isinstance(value, int | float | str) and type(value) is not bool:
        with contextlib.suppress(ValueError, OverflowError):
            if kind is float and math.isfinite(float(value)):
                return float(value)
            if kind is int and (isinstance(value, str) or value == int(value)):
                return int(value)
    said = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
    raise SettingError(f"{where} is {value!r}; expected {said.get(kind, kind)} like {default!r}.")


def _check_form(where: str, value, form: str) -> None:
    """Hold a value to what the form offers: a list of choices, min and max."""
    if form.startswith("["):
        choices = ast.literal_eval(re.match(r"\[.*?\]", form)[0])
        if value not in choices:
            raise SettingError(f"{where} is {value!r}.{near(value, choices)}")
    limits = {key: float(text) for key, text in re.findall(r"\b(min|max): *(-?[\d.]+)", form)}
    low, high = limits.get("min", -math.inf), limits.get("max", math.inf)
    if limits and not low <= value <= high:
        up_to = f" to {high:g}" if high < math.inf else " or more"
        raise SettingError(f"{where} is {value!r}; expected {low:g}{up_to}.")


def _kernel(notebook: Path) -> type:
    """A kernel of this interpreter, whatever kernels the machine has; it knows its notebook."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        def __init__(self, **arguments):
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **arguments)

        async def start_kernel(self, **arguments):
            packages = [str(places.PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
            about = {
                "PYTHONPATH": os.pathsep.join(filter(None, packages)),
                "JPY_SESSION_NAME": str(notebook),
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # agg draws nothing
            }
            await super().start_kernel(env=os.environ | about, **arguments)

    return Kernel


def _take_out_secrets(notebook, name: str, state: str | Path | None = None) -> str:
    """Blank every secret in place; say which cell held the first and of which kind, or ""."""
    folder = state or os.environ.get("LOCAL_CLOUD_DIR") or places.project_root() / ".local-cloud"
    patterns = dict(SECRETS)
    with contextlib.suppress(OSError, ValueError, KeyError):
        token = json.loads(Path(folder, "emulator.json").read_text())["token"]
        patterns["local cloud's token"] = re.escape(token)
    found = []

    def clean(value, place: str):
        if isinstance(value, dict):
            for key in value:
                if not key.startswith("image/"):
                    value[key] = clean(value[key], place)
        elif isinstance(value, list):
            value[:] = [clean(item, place) for item in value]
        elif isinstance(value, str):
            for kind, pattern in patterns.items():
                value, count = re.subn(pattern, f"[{kind} taken out]", value)
                found.extend([f"{place} of {name} shows a secret ({kind})."] * bool(count))
        return value

    code = 0
    for cell in notebook.cells:
        code += cell.cell_type == "code"
        clean(cell, f"cell {code}" if cell.cell_type == "code" else "a text cell")
    clean(notebook.metadata, "the metadata")
    return found[0] if found else ""
