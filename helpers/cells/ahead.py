"""Programs that find TensorFlow imported: the local cloud lets a job fork its first one from a
process that has done so. On Google, and for what such a fork comes too late for, there is none."""

import os
import re
import sys
from pathlib import Path

NAME = "local_cloud_forks"  # the local cloud's servers/forks.py, where it is there
# Read as TensorFlow or Keras is imported, so that a program which sets one needs its own import.
EARLY = re.compile(
    r"\bTF_(?!(CPP_MIN_LOG_LEVEL|CONFIG|KERAS_RUNNING_REMOTELY)\b)\w|\b(KERAS|OMP|MKL|OPENBLAS)_\w"
)


def waits(program: Path, folder: str | Path | None) -> bool:
    """Whether there is one for this program, which may import what lies in the folder."""
    if NAME not in sys.modules:
        return False
    files = [program, *(Path(folder).rglob("*.py") if folder else [])]
    return not any(EARLY.search(file.read_text(errors="replace")) for file in files)


def start(command: list[str], env: dict[str, str], cwd: str | Path):
    """`python …` as a fork in a session of its own, with the manners of `subprocess.Popen`.

    Returns:
        None: it has to be started by itself.
    """
    return sys.modules[NAME].start(command, env, str(cwd))


def provisioner(**about):
    """Starts a kernel so."""
    from jupyter_client.provisioning import LocalProvisioner

    class Ahead(LocalProvisioner):
        async def launch_kernel(self, cmd, **kwargs):
            env = kwargs["env"] | {"JPY_PARENT_PID": str(os.getpid())}
            process = start(cmd, env, kwargs.get("cwd") or os.getcwd())
            if process is None:
                return await super().launch_kernel(cmd, **kwargs)
            self.process, self.pid, self.pgid = process, process.pid, process.pid
            return self.connection_info

    return Ahead(**about)
