"""A load generator small enough not to be the brake: python load.py (arguments as JSON on stdin).

Takes {"port", "path", "host", "token", "body", "clients", "seconds"}, a body of "" for a GET; a
path with {n} has the request's number there, and then "requests" says how many are made. Prints
{"per_s", "p50_ms", "p99_ms", "failed"}.
"""

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Iterator


class Client(asyncio.Protocol):
    """One kept connection that asks again as soon as it was answered."""

    def __init__(self, requests: Iterator[bytes], until: float, done: asyncio.Future):
        self.requests, self.until, self.done = requests, until, done
        self.took_s, self.failed, self.buffer = [], 0, b""

    def connection_made(self, transport):
        self.transport = transport
        self.ask()

    def ask(self):
        request = next(self.requests, None)
        if request is None or (self.took_s and time.perf_counter() > self.until):
            self.until = 0
            self.transport.close()
            return
        self.start = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data):
        self.buffer += data
        head, found, body = self.buffer.partition(b"\r\n\r\n")
        if not found:
            return
        length = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
        if len(body) < int(length) if length else not body.endswith(b"0\r\n\r\n"):
            return
        now = time.perf_counter()
        self.took_s.append(now - self.start)
        self.failed += not head.startswith(b"HTTP/1.1 200")
        self.buffer = b""
        self.ask()

    def connection_lost(self, error):
        self.failed += time.perf_counter() < self.until
        if not self.done.done():
            self.done.set_result(None)


async def measure(asked: dict) -> dict:
    body = asked["body"].encode()
    head = (
        f"{'POST' if body else 'GET'} {asked['path']} HTTP/1.1\r\nHost: {asked['host']}\r\n"
        f"Authorization: Bearer {asked['token']}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    request, numbers = head.encode() + body, range(asked.get("requests", 0))
    if "{n}" in asked["path"]:
        requests = (request.replace(b"{n}", b"%06d" % n, 1) for n in numbers)
    else:
        requests = itertools.repeat(request)
    loop, start = asyncio.get_running_loop(), time.perf_counter()
    until, clients, ends = start + asked["seconds"], [], []
    for _ in range(asked["clients"]):
        done = loop.create_future()
        client = Client(requests, until, done)
        await loop.create_connection(lambda client=client: client, "127.0.0.1", asked["port"])
        clients.append(client)
        ends.append(done)
    await asyncio.gather(*ends)
    took = sorted(s for client in clients for s in client.took_s)
    return {
        "per_s": len(took) / (time.perf_counter() - start),
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[int(len(took) * 0.99)],
        "failed": sum(client.failed for client in clients),
    }


if __name__ == "__main__":
    import uvloop

    print(json.dumps(uvloop.run(measure(json.load(sys.stdin)))))
