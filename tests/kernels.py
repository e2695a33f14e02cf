"""The kernels that tests start in the usual way, not in that of `helpers.run_notebook`."""

import shutil
import tempfile
import weakref

from jupyter_client.manager import AsyncKernelManager


class ByFiles(AsyncKernelManager):
    """Its kernel is met at files: a port that is free when it is chosen may be taken before use."""

    def __init__(self, **arguments):
        folder = tempfile.mkdtemp(prefix="kernel-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        super().__init__(transport="ipc", ip=f"{folder}/at", **arguments)
