"""``order-monitor``: run until stopped."""

from __future__ import annotations

from pathlib import Path

import structlog

from order_monitor import __version__
from order_monitor.clock import SystemClock
from order_monitor.commands.compose import (
    ExitCode,
    close_all,
    database_of,
    engine_of,
    health_of,
    run_to_exit,
    sender_of,
    settings_of,
)
from order_monitor.life import Life, Stop
from order_monitor.logs import Redactor
from order_monitor.settings import Settings


def run_daemon(config: Path | None) -> int:
    """Run until a signal stops it; return the exit code."""
    settings, sink, redactor = settings_of(config, "database", "provider")
    return run_to_exit(_live(settings, redactor), sink)


async def _live(settings: Settings, redactor: Redactor) -> int:
    log = structlog.get_logger("order_monitor")
    stop = Stop()
    with stop.on_signals():
        database = database_of(settings)
        engine = engine_of(settings, database, redactor)
        sender = sender_of(settings, database)
        life = Life(
            engine,
            SystemClock(),
            stop,
            grace=settings.shutdown.grace,
            scan_interval=settings.schedule.scan_interval,
            beside={"webhook": sender.run} if sender else None,
        )
        health = health_of(settings, engine)
        if health is not None:
            await health.start()
        log.info("started", version=__version__)
        try:
            clean = await life.forever()
        finally:
            if health is not None:
                await health.stop()
            await close_all(engine, database, sender)
        log.info("stopped", clean=clean)
        return ExitCode.OK if clean else ExitCode.NOT_DONE
