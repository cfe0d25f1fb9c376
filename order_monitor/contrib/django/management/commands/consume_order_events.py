"""``manage.py consume_order_events``: pass each event to the shop's handler, once."""

from __future__ import annotations

import signal
from datetime import datetime
from typing import Any

from django.core.checks import ERROR
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone
from django.utils.dateparse import parse_date, parse_datetime

from order_monitor.contrib.django import checks
from order_monitor.contrib.django.conf import handler_of, load
from order_monitor.contrib.django.consumer import Consumer, LostError, Start, clean_up


class Command(BaseCommand):
    """Runs until SIGTERM or SIGINT, and finishes the current event first."""

    help = "Hands each order event to ORDER_MONITOR['HANDLER'], once, in the transaction that marks it as consumed."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--once",
            action="store_true",
            help="act on what there is, and end: 1 if anything failed or still waits",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="list what would be acted on, and change nothing"
        )
        parser.add_argument(
            "--from",
            dest="where",
            metavar="WHERE",
            help="act on events from this one on: now (the default of the first start), all, a number, or a time",
        )
        parser.add_argument("--handler", help="another handler than ORDER_MONITOR['HANDLER']")

    def handle(self, **options: Any) -> None:
        """Run."""
        try:
            config = load()
            handler = handler_of(config, options["handler"])
            found = [one for one in checks.problems(config) if one.level >= ERROR]
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        if found:
            raise CommandError("\n".join(f"{one.msg} {one.hint or ''}".strip() for one in found))
        consumer = Consumer(config, handler)
        try:
            start = self._start(consumer, options["where"], is_dry=options["dry_run"])
            if options["dry_run"]:
                self._list(consumer, start)
                return
            clean_up(consumer.side)
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: setattr(consumer, "is_stopping", True))
            if options["once"]:
                self._run_once(consumer)
            else:
                consumer.run()
        except LostError as error:
            raise CommandError(f"the database cannot be reached: {error}", returncode=3) from None
        finally:
            consumer.side.close()

    def _run_once(self, consumer: Consumer) -> None:
        # What comes later is for the next time.
        newest = consumer.newest()
        failed = consumer.run_once(newest)
        waiting, aside = consumer.count_waiting(newest)
        if failed or waiting:
            raise CommandError(
                f"{failed} failed, {waiting} still wait, {aside} of them set aside; manage.py order_events_in_trouble shows "
                "those in trouble, --dry-run all that wait"
            )

    def _start(self, consumer: Consumer, where: str | None, *, is_dry: bool) -> Start:
        start = consumer.start()
        if where is not None or start is None:
            begin = _parsed(where or "now")
            if is_dry:
                start = consumer.start_of(begin)
            elif where is None:
                start = consumer.start_first(begin)
            else:
                start = consumer.start_from(begin)
        self.stderr.write(f"Acting on events from number {start.since} on.")
        if before := consumer.left_alone(start):
            self.stderr.write(
                f"{before} earlier events are not consumed, and left alone; --from takes them."
            )
        return start

    def _list(self, consumer: Consumer, start: Start) -> None:
        for one in consumer.waiting(start):
            event = one.event
            money = "moves money" if event.moves_money else "moves no money"
            if event.outcome is None and not event.repeat:
                money = "what it means is not known"
            why = f"  ({one.why})" if one.why else ""
            self.stdout.write(f"{event.id}  {event.order_id}  {event.outcome}  {money}{why}")


def _parsed(where: str) -> int | datetime | str:
    if where in ("now", "all"):
        return where
    if where.isdecimal():
        return int(where)
    try:
        at = parse_datetime(where)
        day = None if at else parse_date(where)
    except ValueError:
        at = day = None
    if day:
        at = datetime(day.year, day.month, day.day)  # noqa: DTZ001 - made aware below
    if at is None:
        raise CommandError(
            f"--from: {where!r} is neither now, all, an event's number, nor a time like 2026-09-21T14:00Z"
        )
    return timezone.make_aware(at, timezone.get_default_timezone()) if timezone.is_naive(at) else at
