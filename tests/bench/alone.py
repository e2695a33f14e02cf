"""A measurement in a process of its own, quietly."""

import multiprocessing
import os
import re
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def run(measure: Callable[..., dict], *arguments) -> dict:
    """What a function gives there."""
    anew = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=anew, initializer=_quietly) as process:
        return process.submit(measure, *arguments).result()


def _quietly() -> None:
    """Its bars of progress are nobody's news; its errors come as exceptions."""
    sys.stderr = sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def peak_mb() -> float:
    """The most memory that this process had."""
    # not getrusage: a process starts with its parent's peak there
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024
