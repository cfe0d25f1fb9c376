"""``order-monitor``: run until stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import structlog

from order_monitor import __version__
from order_monitor.commands.assembly import Assembly
from order_monitor.commands.composition import settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.reload import Reloader
from order_monitor.settings.model import Settings
from order_monitor.tell.logs import LineSink
from order_monitor.tell.redactor import Redactor
from order_monitor.watch.lifecycle import Stop
from order_monitor.watch.system_clock import SystemClock


def run_daemon(config: Path | None) -> int:
    """Run until a signal stops it; return the exit code."""
    # Until there is something to reload, and when there is no longer, a hang-up must not end the daemon.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings, sink, redactor = settings_of(config, "database", "provider")
    return run_to_exit(_live(config, settings, sink, redactor), sink.close)


async def _live(config: Path | None, settings: Settings, sink: LineSink, redactor: Redactor) -> int:
    log = structlog.get_logger("order_monitor")
    stop = Stop()
    parts = Assembly.of(settings, stop, redactor, lambda: sink.dropped)
    reloader = Reloader(config, settings, parts, redactor)
    with stop.on_signals(hang_up=reloader):
        try:
            if parts.health is not None:
                await parts.health.start_patiently(SystemClock())
            log.info("started", version=__version__)
            clean = await parts.life.forever(parts.sender.begin if parts.sender is not None else None)
        finally:
            reloader.stop()
            await parts.close()
        log.info("stopped", clean=clean)
        return ExitCode.OK if clean else ExitCode.NOT_DONE
