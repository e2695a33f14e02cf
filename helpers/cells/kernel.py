"""Run the cells of a notebook in a kernel of this interpreter, strictly."""

import contextlib
import os
import queue
import sys
import time
from pathlib import Path

import nbformat

from helpers.cells import ahead, leaks
from helpers.cells import parameters as cells
from helpers.cloud.folders import PACKAGE
from helpers.errors import NotebookError
from helpers.looks.report import html_report, prepare, unrun

STARTS, START_S = 3, 300
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
    manager = _kernel(path, cwd, rehearse=report or rehearse)
    try:
        _run(
            str(source), str(output), parameters, kernel_name="python3", language="python",
            progress_bar=False, cwd=cwd, kernel_manager_class=manager, start_timeout=START_S,
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


class _EndedError(Exception):
    """A kernel ended before it was there."""


def _run(*arguments, **about) -> None:
    """Run it; a kernel that ended before it was there is started again, as no cell has run.

    A kernel's ports are free when they are chosen, and another program may take one before it does.
    """
    from papermill import execute_notebook

    for _ in range(STARTS):
        try:
            execute_notebook(*arguments, **about)
            return
        except _EndedError as error:
            ended = error
    raise NotebookError(
        f"The kernel ended before it ran a cell. {sys.executable} has to have a working ipykernel; "
        "what it said stands above."
    ) from ended


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


def _kernel(notebook: Path, cwd: str | Path | None, *, rehearse: bool) -> type:
    """A kernel of this interpreter, whatever kernels the machine has; it knows its notebook.

    Args:
        cwd: from where its cells import.
        rehearse: prepare the page as soon as the kernel's process runs.
    """
    from jupyter_client.asynchronous import AsyncKernelClient
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class Client(AsyncKernelClient):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.context.reconnect_ivl = 10  # ms from try to try, of its sockets

        async def wait_for_ready(self, timeout=None):
            await _ready(self, timeout or float("inf"))

    class Kernel(AsyncKernelManager):
        def __init__(self, **arguments):
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **arguments)
            self.client_factory = Client

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
            if ahead.waits(notebook, cwd):
                self.provisioner = ahead.provisioner(kernel_spec=self.kernel_spec, parent=self)
            await super().start_kernel(env=os.environ | about, **arguments)
            if rehearse:
                prepare()

        async def _async_finish_shutdown(self, waittime=None, pollinterval=0.01, restart=False):
            await super()._async_finish_shutdown(waittime, pollinterval, restart)  # else 0.1 s

    return Kernel


async def _ready(client, timeout_s: float) -> None:
    """Wait until a kernel answers on both channels.

    jupyter_client's own way then waits for 0.2 s of silence on the channel of outputs. What is left
    there belongs to no cell, so nbclient passes it over.
    """
    until_s = time.monotonic() + timeout_s
    while time.monotonic() < until_s:
        client.kernel_info()
        with contextlib.suppress(queue.Empty):
            await client.shell_channel.get_msg(timeout=1)
            await client.iopub_channel.get_msg(timeout=0.05)  # not connected yet: ask again
            return
        if not await client.is_alive():
            raise _EndedError
    raise NotebookError(
        f"The kernel does not answer after {timeout_s:g} s. Is this machine out of memory, or busy?"
    )
