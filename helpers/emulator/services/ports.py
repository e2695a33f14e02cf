"""Ports for programs that are told theirs."""

import contextlib
import random
import socket

# Below those that systems give to whoever asks for any: nobody takes one between choice and use.
FIRST, LAST = 10_000, 30_000


def free(count: int = 1) -> list[int]:
    """Ports of the loopback that nobody has."""
    found: set[int] = set()
    while len(found) < count:
        port = random.randint(FIRST, LAST)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.add(port)
    return [*found]
