"""``order-monitor``: run until stopped."""

from __future__ import annotations

import signal
from pathlib import Path

import structlog

from order_monitor import __version__
from order_monitor.app import App, settings_of
from order_monitor.commands.exits import ExitCode, run_to_exit
from order_monitor.commands.reload import Reloader
from order_monitor.settings.model import Settings
from order_monitor.tell.logs import LineSink
from order_monitor.tell.redactor import Redactor
from order_monitor.watch.lifecycle import Stop
from order_monitor.watch.system_clock import SystemClock


def run_daemon(config: Path | None) -> int:
    """Run until a signal stops the daemon; return the exit code."""
    # A SIGHUP must not end the daemon before it can reload, or after it no longer can.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    settings, sink, redactor = settings_of(config, "database", "provider")
    return run_to_exit(_live(config, settings, sink, redactor), sink.close)


async def _live(config: Path | None, settings: Settings, sink: LineSink, redactor: Redactor) -> int:
    log = structlog.get_logger("order_monitor")
    stop = Stop()
    app = App(settings, stop, redactor, lambda: sink.dropped)
    reloader = Reloader(config, settings, app, redactor)
    with stop.on_signals(hang_up=reloader):
        async with app:
            try:
                if app.health is not None:
                    await app.health.start(retrying=SystemClock())
                log.info("started", version=__version__)
                if settings.observe:
                    log.warning("observing", writes="only order_monitor_observed")
                clean = await app.life.forever(None if app.sender is None else app.sender.begin)
            finally:
                reloader.stop()
        log.info("stopped", clean=clean)
        return ExitCode.OK if clean else ExitCode.NOT_DONE
