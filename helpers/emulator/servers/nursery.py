"""Model servers and jobs without the wait for TensorFlow: one process imports it, each is its fork.

    python nursery.py PADDING < a socket of whole messages

It says "ready" when it has imported. A message names a program's command, environment and folder,
with its standard streams; the answer is its number, with a handle of it. A fork enters its sandbox
first and shares nothing that can be written with the others. Linux only. It leaves when the socket
closes, or when it has had no program and no message for a while. It imports nothing of this
package.
"""

import gc
import json
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

import forks
import replica

LINGER_S = 300


def main() -> None:
    asked = socket.socket(fileno=os.dup(0))
    gc.disable()  # of what an import makes nearly all stays
    _import()
    gc.enable()
    gc.freeze()  # the forks share these objects' memory for longer
    asked.send(b"ready")
    running, last_s = {}, time.monotonic()
    waiting = select.poll()
    waiting.register(asked, select.POLLIN)
    while running or time.monotonic() - last_s < LINGER_S:
        for descriptor, _ in waiting.poll(1000):
            if descriptor != asked.fileno():
                waiting.unregister(descriptor)
                os.waitpid(running.pop(descriptor), 0)
                os.close(descriptor)
                continue
            message, given, *_ = socket.recv_fds(asked, forks.MESSAGE_BYTES, 3)
            if not message:
                return
            last_s = time.monotonic()
            if given:
                pid, handle = _fork(asked, json.loads(message), given)
                running[handle] = pid
                waiting.register(handle, select.POLLIN)


def _import() -> None:
    import tensorflow  # noqa: F401, I001 - all of it, as a job needs it
    import saved_model  # noqa: F401
    import uvicorn  # noqa: F401


def _fork(asked: socket.socket, program: dict, given: list[int]) -> tuple[int, int]:
    pid = os.fork()
    if pid == 0:
        os.setsid()
        folder = program.pop("supervises", None)
        if folder is None:
            forks.become(**program, streams=tuple(given))
        _supervise(Path(folder), program, given)
    handle = os.pidfd_open(pid)
    socket.send_fds(asked, [str(pid).encode()], [handle])
    for descriptor in given:
        os.close(descriptor)
    return pid, handle


def _supervise(folder: Path, program: dict, given: list[int]) -> None:
    """A replica's supervisor, which keeps what is imported for the replica."""
    code = 1
    try:
        forks.enter(**program, streams=tuple(given))
        replica.main(folder, forks.fork)
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        forks.end(code)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the local cloud
    main()
    os._exit(0)  # without the second that it takes to free what an import made
