"""Faults on request, to test clients by; there are none unless LOCAL_CLOUD_FAULTS asks for them.

    LOCAL_CLOUD_FAULTS=0.1:7            every kind on a tenth of the calls of every method, seed 7
    LOCAL_CLOUD_FAULTS='{"seed": 7, "storage.objects.*": {"503": 0.5, "lost": 0.1}}'

By method, the first pattern that fits it counts. What the n-th call of a method meets is drawn from
the seed, the method and n: the same calls meet the same faults again.
"""

import asyncio
import fnmatch
import json
import random
from collections import Counter

from helpers.emulator.front.calls import ApiError

# Answered instead of the call; a connection dropped before the call has its effect, and after it;
# an answer that comes late; an answer of which half arrives.
KINDS = ("429", "500", "503", "dropped", "lost", "slow", "truncated")
SLOW_S = 0.5


class Faults:
    """Draws a fault for every call, and spoils its answer."""

    def __init__(self, text: str):
        """Raises: ValueError: the text asks for something else than faults."""
        if not text.startswith("{"):
            share, _, seed = text.partition(":")
            text = json.dumps({"seed": seed, "*": dict.fromkeys(KINDS, float(share))})
        self.shares = json.loads(text)
        self.seed, self.counts = self.shares.pop("seed", ""), Counter()
        for shares in self.shares.values():
            unknown = set(shares) - set(KINDS)
            if unknown or sum(shares.values()) > 1:
                raise ValueError(f"LOCAL_CLOUD_FAULTS: {shares}; expected shares of {KINDS}.")

    def draw(self, method_id: str) -> str:
        """The fault this call meets, "" for none."""
        self.counts[method_id] += 1
        number = random.Random(f"{self.seed} {method_id} {self.counts[method_id]}").random()
        fits = (s for pattern, s in self.shares.items() if fnmatch.fnmatchcase(method_id, pattern))
        for kind, share in next(fits, {}).items():
            number -= share
            if number < 0:
                return kind
        return ""

    async def before(self, method_id: str) -> str:
        """Draw, and do what comes before the call's effect; the kind, for `after`.

        Raises:
            ApiError: the fault is this answer.
            ConnectionAbortedError: the connection is to be dropped, without an effect.
        """
        kind = self.draw(method_id) if self.shares else ""
        if kind in ("429", "500", "503"):
            raise ApiError(int(kind), "A fault that LOCAL_CLOUD_FAULTS asked for.")
        if kind == "dropped":
            raise ConnectionAbortedError
        if kind == "slow":
            await asyncio.sleep(SLOW_S)
        return kind

    def after(self, kind: str, send):
        """What takes the place of `send` for the answer of a call that met this fault."""

        async def spoiled(message: dict) -> None:
            body = message.get("body", b"")
            if kind == "truncated" and message["type"] == "http.response.start":
                await send(message)
                return
            if kind == "truncated" and body:
                await send(message | {"body": body[: len(body) // 2], "more_body": True})
            drop(send)

        return spoiled if kind in ("lost", "truncated") else send


def drop(send) -> None:
    """Close the connection; ASGI has no word for it, so uvicorn's own is used."""
    send.__self__.transport.close()
