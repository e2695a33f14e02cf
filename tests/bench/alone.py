"""A measurement in a process of its own, which finds TensorFlow imported: a fork of one that has
done nothing else."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.bench.train"])


def run(measure: Callable[..., dict], *arguments) -> dict:
    """What a function gives there."""
    with ProcessPoolExecutor(1, mp_context=_forks, initializer=_quietly) as process:
        return process.submit(measure, *arguments).result()


def _quietly() -> None:
    """Its bars of progress are nobody's news; its errors come as exceptions."""
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def peak_mb() -> float:
    """The most memory that this process had."""
    # not getrusage: a process starts with its parent's peak there
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
