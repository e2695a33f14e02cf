"""TensorBoard over the logs of a training job, or of a notebook on this machine."""

import sys
from pathlib import Path

from helpers.cloud import folders, storage
from helpers.errors import NotFoundError


def tensorboard(logs) -> str:
    """Open TensorBoard: in Colab below the cell, elsewhere at the address it prints and gives.

    Args:
        logs: a job, whose logs so far are fetched from the bucket, or a folder of logs.
    Returns:
        The address, good as long as this kernel lives; "" in Colab.
    Raises:
        NotFoundError: nothing was logged.
    Source: tensorboard's own `%tensorboard` (tensorboard.notebook)
    """
    folder = Path(logs) if isinstance(logs, str | Path) else _fetch(logs)
    if not any(folder.rglob("events.out.tfevents.*")):
        raise NotFoundError(
            f"No TensorBoard logs in {folder}. Give fit a keras.callbacks.TensorBoard; in a job it "
            "writes below OUTPUT_DIR/logs."
        )
    if "google.colab" in sys.modules:
        from tensorboard import notebook

        notebook.start(f'--logdir "{folder}"')
        return ""
    from tensorboard import program

    server = program.TensorBoard()
    server.configure(logdir=str(folder), host="127.0.0.1", port=0)
    address = server.launch()
    print(f"TensorBoard over {folder}: {address}")
    return address


def _fetch(job) -> Path:
    folder = folders.project_root() / "outputs" / "logs" / Path(job.base_uri).name
    return storage.download_folder(job.session, f"{job.base_uri}/logs", folder)
