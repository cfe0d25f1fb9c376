"""The two limits: the program's own client with nothing around it, and Python's streams."""

from __future__ import annotations

from benchmarks.compare.contestants.contestant import Contestant, module

HTTPX = Contestant(
    "httpx loop",
    "as many tasks as calls in flight, each asking again and again through order-monitor's own client; no database",
    lambda load: [module("httpx_loop", load)],
    is_whole=False,
)
STREAMS = Contestant(
    "bare streams",
    "the same over asyncio's streams, with as little HTTP as will do; no database",
    lambda load: [module("streams_loop", load)],
    is_whole=False,
)
