"""The page, the status document, its stream and the metrics: everything behind the health
endpoint's guard.

The page is one document that loads nothing else: its style and script are inline, and allowed only
by their hashes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import html
import json
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any, Final

from aiohttp import web

from order_monitor.core.text import visible
from order_monitor.tell.document import document_of
from order_monitor.tell.finder import NOTHING, Busy, Finder
from order_monitor.tell.health import Handler
from order_monitor.tell.metrics import CONTENT_TYPE, Metrics
from order_monitor.tell.status_view import StatusView

LANGUAGES: Final = ("en", "tr", "ar")
STREAMS: Final = 16
"""Maximum number of simultaneous streams; each renders a document every two seconds."""

EVERY: Final = 2.0
WRITE_TIMEOUT: Final = 5.0
_RIGHT_TO_LEFT: Final = ("ar",)


class Page:
    """The HTML document, rendered once per language."""

    def __init__(self) -> None:
        """Read its parts, which are installed with the package."""
        folder = resources.files("order_monitor.tell") / "page"
        frame, style, script, words = (
            (folder / name).read_text("utf-8")
            for name in ("page.html", "page.css", "page.js", "words.json")
        )
        self.policy = (
            f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; connect-src 'self'; "
            "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        self._documents = {
            language: _fill(frame, language, style, script, json.loads(words)[language])
            for language in LANGUAGES
        }

    def document(self, language: str) -> str:
        """Return the page in one of `LANGUAGES`."""
        return self._documents[language]


def _fill(frame: str, language: str, style: str, script: str, words: Mapping[str, str]) -> str:
    parts = {
        "lang": language,
        "dir": "rtl" if language in _RIGHT_TO_LEFT else "ltr",
        "title": html.escape(words["title"]),
        "style": style,
        "script": script,
        "words": json.dumps(words, ensure_ascii=False).replace("<", "\\u003c"),
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda mark: parts[mark[1]], frame)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def language_of(wanted: str, accepted: str) -> str:
    """Return the language from ``?lang=``, else the best match in ``Accept-Language`` (RFC 9110,
    12.5.4), else English.
    """
    if wanted in LANGUAGES:
        return wanted
    ranked = []
    for n, part in enumerate(accepted.split(",")):
        name, _, weight = part.strip().partition(";")
        found = re.fullmatch(r"\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*", weight)
        ranked.append(
            (-(float(found[1]) if found else 1.0), n, name.strip().lower().partition("-")[0])
        )
    return next(
        (name for weight, _, name in sorted(ranked) if name in LANGUAGES and weight < 0), "en"
    )


class Dashboard:
    """The routes that `order_monitor.tell.health.HealthServer` serves."""

    def __init__(self, view: StatusView, metrics: Metrics, finder: Finder | None = None) -> None:
        """Show ``view`` and ``metrics``; ``finder`` searches for orders that are not listed."""
        self._view = view
        self._finder = finder
        self._metrics = metrics
        self._page = Page()
        self._closing = asyncio.Event()
        self._streams = 0

    def routes(self) -> Mapping[str, Handler]:
        """Return the handler of each path."""
        return {
            "/": self._index,
            "/metrics": self._scrape,
            "/api/status": self._status,
            "/api/stream": self._stream,
            "/api/find": self._find,
        }

    def close(self) -> None:
        """End the streams."""
        self._closing.set()

    async def _index(self, request: web.Request) -> web.Response:
        language = language_of(
            request.query.get("lang", ""), request.headers.get("Accept-Language", "")
        )
        headers = {
            "Content-Security-Policy": self._page.policy,
            "Referrer-Policy": "no-referrer",
            "Content-Language": language,
            "Vary": "Accept-Language",
        }
        return web.Response(
            text=self._page.document(language), content_type="text/html", headers=headers
        )

    async def _scrape(self, _: web.Request) -> web.Response:
        return web.Response(body=self._metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _status(self, _: web.Request) -> web.Response:
        return web.Response(body=_json(document_of(self._view)), content_type="application/json")

    async def _find(self, request: web.Request) -> web.Response:
        """Search the database for an order by any of its identifiers; respond with 429 if it is not
        this search's turn.
        """
        typed = request.query.get("q", "")
        try:
            found = NOTHING if self._finder is None else await self._finder.find(typed)
        except Busy:
            raise web.HTTPTooManyRequests(
                text="one search at a time\n", headers={"Retry-After": "1"}
            ) from None
        return web.Response(body=_json(found), content_type="application/json")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        """Send the document every two seconds, always the newest: a slow reader misses some, and
        nothing piles up.
        """
        if self._streams >= STREAMS:
            raise web.HTTPServiceUnavailable(
                text="too many are watching\n", headers={"Retry-After": "10"}
            )
        self._streams += 1
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
        )
        try:
            await response.prepare(request)
            while not self._closing.is_set():
                async with asyncio.timeout(WRITE_TIMEOUT):
                    await response.write(
                        b"event: status\ndata: " + _json(document_of(self._view)) + b"\n\n"
                    )
                await self._pause()
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
        finally:
            self._streams -= 1
        return response

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(EVERY):
                await self._closing.wait()
        except TimeoutError:
            return


def _json(document: dict[str, Any]) -> bytes:
    return visible(json.dumps(document, ensure_ascii=False, separators=(",", ":"))).encode()
