"""A plugin of pytest's: tests run on uvloop's event loop (``-p tests.fast.policy``)."""

import asyncio

import uvloop  # type: ignore[import-not-found, unused-ignore]

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
