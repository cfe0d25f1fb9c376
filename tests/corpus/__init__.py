"""Answers as panels give them, byte for byte, each with its right reading: the table is
``answers.toml`` next to this file.

An entry gives a ``body`` in a ``charset`` (UTF-8), ``packed`` (gzip, zlib or deflate), with
``headers`` and a ``status``; or a whole response as it comes over the ``wire``, a byte a character.
Its ``answer`` is an outcome's name with what goes with it; where its ``question`` is ``balance``,
it is ``balance`` or ``no balance``. Questions to a client API say so; they are about `REFERENCE`.
"""

import gzip
import tomllib
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from order_monitor.core.answer import (
    Answer,
    Blocked,
    Busy,
    Cancelled,
    Completed,
    Garbled,
    Refused,
    Unreachable,
    Waiting,
)
from order_monitor.core.pin import Pin
from order_monitor.providers.provider import Balance, NoBalance

Entry = Mapping[str, Any]
REFERENCE = "ID_7"


def _read() -> dict[str, Entry]:
    entries = tomllib.loads((Path(__file__).parent / "answers.toml").read_text("utf-8"))["answer"]
    found = {f"{entry['seen']}: {entry['name']}": entry for entry in entries}
    assert len(found) == len(entries), "two entries have one name"
    return found


ENTRIES = _read()


def body_of(entry: Entry) -> bytes:
    """Return the body's bytes as sent."""
    plain = str(entry["body"]).encode(entry.get("charset", "utf-8"))
    match entry.get("packed"):
        case "gzip":
            return gzip.compress(plain, mtime=0)
        case "zlib":
            return zlib.compress(plain)
        case "deflate":
            packer = zlib.compressobj(wbits=-15)
            return packer.compress(plain) + packer.flush()
        case _:
            return plain


def response_of(entry: Entry) -> bytes:
    """Return the whole response's bytes."""
    if "wire" in entry:
        return str(entry["wire"]).encode("latin-1")
    body = body_of(entry)
    headers = [*entry.get("headers", ()), f"Content-Length: {len(body)}"]
    head = "\r\n".join([f"HTTP/1.1 {entry.get('status', '200 OK')}", *headers])
    return f"{head}\r\n\r\n".encode() + body


def answer_of(entry: Entry) -> Answer:
    """Return the entry's expected answer about an order."""
    message, why = entry.get("message", ""), entry.get("why", "")
    match entry["answer"]:
        case "completed":
            return Completed(Pin(entry["pin"]) if "pin" in entry else None, message)
        case "waiting":
            return Waiting(message)
        case "cancelled":
            return Cancelled(message)
        case "refused":
            return Refused(entry["code"], message)
        case "garbled":
            return Garbled(why)
        case "blocked":
            return Blocked(why)
        case "busy":
            return Busy(why, entry.get("retry_after"))
        case "unreachable":
            return Unreachable(why)
        case other:
            raise ValueError(other)


def balance_of(entry: Entry) -> tuple[Balance | NoBalance, float | None]:
    """Return the entry's expected balance, and its numeric value."""
    if entry["answer"] == "balance":
        return Balance(entry["amount"]), entry.get("number")
    return NoBalance(entry["why"]), None
