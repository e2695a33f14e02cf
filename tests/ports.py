"""Ports for programs that must be told theirs: below those the system gives out by itself, so that
nobody takes one between the choice and its use."""

import contextlib
import itertools
import os
import socket

_candidates = itertools.count(10_000 + os.getpid() * 37 % 20_000)


def free_port() -> int:
    """A port of the loopback that nobody has; each is given once."""
    while True:
        port = next(_candidates)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
