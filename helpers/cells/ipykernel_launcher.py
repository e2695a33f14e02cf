"""A kernel as IPython's launcher of this name starts it, but it ends at once.

    python ipykernel_launcher.py -f FILE

At its end Python looks several times through all objects there are for what refers to itself only;
after TensorFlow these are millions, and it takes seconds. Here it leaves them to the system, and
frees everything else as always. Run by its path: a notebook finds nothing of this package by it.
"""

import atexit
import contextlib
import gc
import io
import os
import sys

BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def leave() -> None:
    """Complete every file that is still open, also one that nothing else would close now."""
    for thing in gc.get_objects():
        if type(thing) in BUFFERED:
            with contextlib.suppress(OSError, ValueError):  # closed; a reader that has left
                thing.flush()
    gc.freeze()


if __name__ == "__main__":
    atexit.register(leave)
    if sys.path[0] == os.path.dirname(__file__):  # not with PYTHONSAFEPATH
        del sys.path[0]
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()
