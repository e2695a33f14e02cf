"""Model servers without the wait for TensorFlow: one process imports it, each server is its fork.

    python nursery.py PADDING < a socket of whole messages

A message names a server's command, environment, folder and sandbox, with its standard input and
output; the answer is its number, with a handle of it. A fork enters the sandbox first and shares
nothing that can be written with the others. Linux only. It leaves when the socket closes, or when
it has had no server and no message for a while. It imports nothing of this package.
"""

import ctypes
import gc
import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback

LINGER_S = 30
MESSAGE_BYTES = 2**17


def main() -> None:
    asked = socket.socket(fileno=os.dup(0))
    gc.disable()  # of what an import makes nearly all stays
    _import()
    gc.enable()
    gc.freeze()  # the forks share these objects' memory for longer
    servers, last_s = 0, time.monotonic()
    while servers or time.monotonic() - last_s < LINGER_S:
        ready, _, _ = select.select([asked], [], [], 1)
        while servers and os.waitpid(-1, os.WNOHANG)[0]:
            servers -= 1
        if ready:
            message, given, *_ = socket.recv_fds(asked, MESSAGE_BYTES, 2)
            if not message:
                return
            last_s = time.monotonic()
            if given:
                _fork(asked, json.loads(message), given)
                servers += 1


def _import() -> None:
    import model_server  # noqa: F401
    import saved_model  # noqa: F401 - and with it TensorFlow
    import uvicorn  # noqa: F401


def _fork(asked: socket.socket, server: dict, given: list[int]) -> None:
    number = os.fork()
    if number == 0:
        asked.close()
        _be(server, given)
    handle = os.pidfd_open(number)
    socket.send_fds(asked, [str(number).encode()], [handle])
    for descriptor in (handle, *given):
        os.close(descriptor)


def _be(server: dict, given: list[int]) -> None:
    """The server's own life; it never returns."""
    code = 1
    try:
        os.setsid()
        for place, descriptor in enumerate([*given, given[1]]):
            os.dup2(descriptor, place)
        for descriptor in given:
            os.close(descriptor)
        _show(server["command"])
        os.environ.clear()
        os.environ.update(server["env"])
        tempfile.tempdir = None
        os.chdir(server["cwd"])
        if server["sandbox"]:
            import sandbox

            sandbox.enter(server["sandbox"])
        sys.argv = server["command"][1:]
        import model_server

        model_server.main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code)


def _show(command: list[str]) -> None:
    """What `ps` shows: the command that would have been started, in the place of our own."""
    with open("/proc/self/stat") as file:
        start, end = map(int, file.read().rpartition(")")[2].split()[45:47])
    words = b"\0".join(map(os.fsencode, command))[: end - start - 1]
    ctypes.memmove(start, words.ljust(end - start, b"\0"), end - start)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's is for the local cloud
    main()
