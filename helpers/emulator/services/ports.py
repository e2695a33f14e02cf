"""Ports for programs that are told theirs."""

import contextlib
import random
import socket

# Below those that systems give to whoever asks for any: nobody takes one between choice and use.
RANGE = range(10_000, 30_000)


def free(count: int = 1) -> list[int]:
    """Ports of the loopback that nobody has."""
    found: list[int] = []
    for port in random.sample(RANGE, len(RANGE)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            found.append(port)
        if len(found) == count:
            break
    return found
