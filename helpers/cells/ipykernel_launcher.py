"""A kernel as IPython's launcher of this name starts it, but it ends at once.

    python ipykernel_launcher.py -f FILE

Python looks through its objects for what refers to itself only whenever there are 700 more, and
several times at its end. Importing TensorFlow makes hundreds of thousands, all of them to stay: a
fifth of that time went into looking, and after a training seconds at the end. Here it looks more
rarely, and at the end leaves them to the system; all else is freed as always. The debugger of an
editor, a fifth of the start, stays out: no editor is there. Run by its path: a notebook finds
nothing of this package by it.
"""

import atexit
import contextlib
import gc
import io
import os
import sys

RARELY = (100_000, 20, 100)
BUFFERED = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def leave() -> None:
    """Complete every file that is still open, also one that nothing else would close now."""
    for thing in gc.get_objects():
        if type(thing) in BUFFERED:
            with contextlib.suppress(OSError, ValueError):  # closed; a reader that has left
                thing.flush()
    gc.freeze()


if __name__ == "__main__":
    gc.set_threshold(*RARELY)
    here = os.path.dirname(os.path.realpath(__file__))  # Python resolves links in its path's head
    sys.path[:] = [place for place in sys.path if os.path.realpath(place) != here]
    sys.modules["debugpy"] = None  # as if it were not installed
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance()
    try:
        app.initialize()
    except Exception as error:  # a port that was free when it was chosen is taken, say
        print(f"The kernel can't start: {error}", file=sys.stderr, flush=True)
        os._exit(1)  # an ordinary end would wait for its sockets, for ever
    del sys.modules["debugpy"]
    # a runner interrupts before it ends a kernel: no news to a reader
    app.log.addFilter(lambda record: "KeyboardInterrupt caught" not in record.getMessage())
    atexit.register(leave)  # after IPython's own, so that it runs before: that one looks, too
    app.start()
