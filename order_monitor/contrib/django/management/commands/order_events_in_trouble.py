"""``manage.py order_events_in_trouble``: list the events on which the handler failed, retry them,
or skip one.
"""

from __future__ import annotations

import getpass
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from order_monitor.contrib.django.conf import Config, load
from order_monitor.contrib.django.consumer import (
    LostError,
    Side,
    born_sql,
    born_words,
    clean_up,
    say_done,
    try_again,
)


class Command(BaseCommand):
    """Lists them, retries them, or marks one as handled by an operator."""

    help = "Lists the events that the handler has failed with; --retry and --done see to them."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """Add the options."""
        parser.add_argument(
            "--retry", nargs="+", metavar="EVENT", help="try these again now, or all"
        )
        parser.add_argument(
            "--done",
            type=int,
            metavar="EVENT",
            help="it is done: mark it as consumed; needs --reason",
        )
        parser.add_argument("--reason", help="why; kept in the log")
        parser.add_argument("--by", default=None, help="who decided it; default: the login name")

    def handle(self, **options: Any) -> None:
        """Run."""
        try:
            config = load()
            side = Side(config.alias)
        except ImproperlyConfigured as error:
            raise CommandError(str(error)) from None
        try:
            if options["retry"]:
                self._retry(side, options["retry"])
            elif options["done"] is not None:
                self._done(side, options)
            else:
                self._list(side, config)
        except LostError as error:
            raise CommandError(f"the database cannot be reached: {error}", returncode=3) from None
        finally:
            side.close()

    def _retry(self, side: Side, typed: list[str]) -> None:
        if typed != ["all"] and not all(one.isdecimal() for one in typed):
            raise CommandError("--retry takes numbers of events, or all")
        count = try_again(side, None if typed == ["all"] else [int(one) for one in typed])
        if not count and typed != ["all"]:
            raise CommandError("none of these is in trouble, and to be acted on")
        self.stdout.write(f"{count} to be tried again")

    def _done(self, side: Side, options: dict[str, Any]) -> None:
        if not (options["reason"] or "").strip():
            raise CommandError("--done needs --reason")
        if not say_done(
            side, options["done"], options["reason"].strip(), options["by"] or getpass.getuser()
        ):
            raise CommandError(
                f"event {options['done']} is neither set aside nor written as consumed"
            )
        self.stdout.write(f"event {options['done']} is done")

    def _list(self, side: Side, config: Config) -> None:
        clean_up(side)
        born = side.run(f"{born_sql(config, among='order_monitor_events')} LIMIT 1000")
        for event_id, order_id, decided_by in born:
            self.stdout.write(f"{event_id}  {order_id}  {born_words(event_id, decided_by)}")
        rows = side.run(
            "SELECT a.event_id, a.order_id, a.attempts, CASE WHEN a.set_aside_at IS NOT NULL THEN 'set aside' "
            "ELSE 'tried again at ' || to_char(a.next_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS \"UTC\"') END, a.error "
            "FROM order_monitor_attempts a ORDER BY a.event_id LIMIT 1000"
        )
        for event_id, order_id, attempts, state, error in rows:
            self.stdout.write(f"{event_id}  {order_id}  {attempts} attempts, {state}: {error}")
        if not rows and not born:
            self.stdout.write("no event is in trouble")
