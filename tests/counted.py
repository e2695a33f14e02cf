"""Counts what is dear in a run of the tests, over all the processes they start: imports of
TensorFlow, and the processes that trained. The system itself tells, by the files they open."""

import compileall
import ctypes
import importlib.util
import os
import struct
import sys
import threading
from collections import Counter
from pathlib import Path

OPENED = 0x20
_counts: Counter[str] = Counter()


def pytest_sessionstart(session) -> None:
    found = importlib.util.find_spec("tensorflow")
    if hasattr(session.config, "workerinput") or sys.platform != "linux" or found is None:
        return
    compileall.compile_file(found.origin, quiet=2)
    folder = Path(found.origin).parent
    watched = {
        "imports": Path(importlib.util.cache_from_source(found.origin)),
        "trainings": folder / "python" / "ops" / "custom_gradient.py",  # of the first gradient
    }
    libc = ctypes.CDLL(None)
    queue = libc.inotify_init1(os.O_CLOEXEC)
    if queue < 0:  # the system has no more of them to give
        return
    names = {
        libc.inotify_add_watch(queue, os.fsencode(path), OPENED): what
        for what, path in watched.items()
    }
    threading.Thread(target=_count, args=(queue, names), daemon=True).start()


def _count(queue: int, names: dict[int, str]) -> None:
    while True:
        events = os.read(queue, 4096)
        while events:
            watch, _, _, length = struct.unpack_from("iIII", events)
            events = events[16 + length :]
            _counts[names[watch]] += 1


def pytest_terminal_summary(terminalreporter) -> None:
    if _counts:
        terminalreporter.write_line(
            f"TensorFlow was imported {_counts['imports']} times; "
            f"{_counts['trainings']} processes trained."
        )
