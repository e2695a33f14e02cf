"""Run the cells of a notebook in a kernel of this interpreter, strictly."""

import os
import sys
from pathlib import Path

import nbformat

from helpers.cells import leaks
from helpers.cells import parameters as cells
from helpers.cloud.folders import PACKAGE
from helpers.errors import NotebookError
from helpers.looks.report import html_report, prepare, unrun

STARTS = 3
LAUNCHER = Path(__file__).with_name("ipykernel_launcher.py")


def execute(
    path: Path, output: Path, parameters: dict, *, report: bool, cwd: str | Path | None, log: bool,
    rehearse: bool = False,
) -> Path:  # fmt: skip
    """Run a notebook and keep it as executed; see `helpers.run_notebook`.

    Args:
        parameters: as `check_parameters` gives them.
        rehearse: the caller will write the page.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import PapermillExecutionError

    output.parent.mkdir(parents=True, exist_ok=True)
    name, kept = path.name, f"Executed notebook: {output}"
    failure, cause, source = "", None, _tagged(path, output.parent)
    manager = _kernel(path, rehearse=report or rehearse)
    try:
        _run(
            str(source), str(output), parameters, kernel_name="python3", language="python",
            progress_bar=False, cwd=cwd, kernel_manager_class=manager,
            extra_arguments=["--log-level=ERROR"],
            stdout_file=sys.stdout if log else None, stderr_file=sys.stderr if log else None,
        )  # fmt: skip
    except PapermillExecutionError as error:
        raised = f"{error.ename}: {error.evalue}".strip(": ")
        failure, cause = f"cell {error.exec_count} of {name} raised {raised}", error
    except DeadKernelError as error:
        failure, cause = f"the kernel of {name} died (out of memory, or killed)", error
    finally:
        if source != path:
            source.unlink(missing_ok=True)
    executed = cells.read(output)
    secret = leaks.take_out(executed, name)
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


def _run(*arguments, **about) -> None:
    """Run it; a kernel that ended before it was there is started again, as no cell has run.

    A kernel's ports are free when they are chosen, and another program may take one before it does.
    """
    from nbclient.exceptions import DeadKernelError
    from papermill import execute_notebook

    for start in range(STARTS):
        try:
            execute_notebook(*arguments, **about)
            return
        except DeadKernelError:
            raise
        except RuntimeError as error:  # jupyter_client has no class for it
            if "Kernel died before replying" not in str(error) or start == STARTS - 1:
                raise


def _tagged(path: Path, folder: Path) -> Path:
    """The notebook, or a copy with the tag that papermill looks for on its parameters cell."""
    notebook = cells.read(path)
    cell = cells.parameters_cell(notebook)
    if cell is None or "parameters" in cell.metadata.get("tags", []):
        return path
    cell.metadata.tags = [*cell.metadata.get("tags", []), "parameters"]
    copy = folder / f".{path.stem}-tagged.ipynb"
    nbformat.write(notebook, copy)
    return copy


def _kernel(notebook: Path, *, rehearse: bool) -> type:
    """A kernel of this interpreter, whatever kernels the machine has; it knows its notebook.

    Args:
        rehearse: prepare the page as soon as the kernel's process runs.
    """
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Kernel(AsyncKernelManager):
        def __init__(self, **arguments):
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **arguments)

        def format_kernel_cmd(self, extra_arguments=None):
            words = super().format_kernel_cmd(extra_arguments)
            place = words.index("-m")  # python … -m ipykernel_launcher …
            return [*words[:place], str(LAUNCHER), *words[place + 2 :]]

        async def start_kernel(self, **arguments):
            packages = [str(PACKAGE.parent), os.environ.get("PYTHONPATH", "")]
            about = {
                "PYTHONPATH": os.pathsep.join(filter(None, packages)),
                "JPY_SESSION_NAME": str(notebook),
                "MPLBACKEND": "module://matplotlib_inline.backend_inline",  # agg draws nothing
            }
            await super().start_kernel(env=os.environ | about, **arguments)
            if rehearse:
                prepare()

    return Kernel
