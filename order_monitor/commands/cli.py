"""Defines the command line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import click

from order_monitor import __version__
from order_monitor.commands.exits import report as report_error
from order_monitor.commands.options import (
    Duration,
    as_json,
    flag,
    one_of,
    takes_config,
    takes_name,
)
from order_monitor.core.errors import OrderMonitorError
from order_monitor.tell.streams import say, show

_ACCEPT: Final = "where settings that decide money differ from those in force, use those."


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@takes_config
@flag("--once", "Make one pass over every open order, print a summary, and exit.")
@as_json("With --once: the summary as one line of JSON.")
@click.option(
    "--every", type=Duration(), help="With --once: ask only what came due in this time, like 60s."
)
@flag("--quiet", "With --once: say nothing when all went well, for cron.")
@flag("--accept-settings", f"With --once: {_ACCEPT}", "accept")
@click.version_option(__version__, "-V", "--version", prog_name="order-monitor")
@click.pass_context
def cli_group(ctx: click.Context, /, config: Path | None, *, once: bool, **wish: Any) -> int:
    """Find out how open orders ended, and write it into the shop's database.

    Without a command: run until stopped. Exit codes: 0 done, 1 something could not be done, 2 bad
    usage or bad settings, 3 the database cannot be reached.
    """
    if any(wish.values()) and not once:
        raise click.UsageError("--json, --every, --quiet and --accept-settings go with --once")
    if ctx.invoked_subcommand is not None:
        if once:
            raise click.UsageError(f"--once does not go with {ctx.invoked_subcommand}")
        return 0
    if once:
        from order_monitor.commands.once import Wish, run_once

        return run_once(config, Wish(**wish))
    from order_monitor.commands.daemon import run_daemon

    return run_daemon(config)


@cli_group.command()
@takes_config
@flag("--dry-run", "Print the SQL that is missing, and change nothing.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["sql", "django"]),
    default="sql",
    help="With --dry-run: the form.",
)
def migrate(config: Path | None, *, dry_run: bool, form: str) -> int:
    """Add to the shop's database what order-monitor needs: a column, indexes and its own tables.

    Safe to repeat.
    """
    from order_monitor.commands.migrate import run_migrate

    return run_migrate(config, dry_run=dry_run or form == "django", django=form == "django")


@cli_group.command()
@takes_config
@as_json("The lines as one JSON list.")
@flag("--rehearse", "Try the writes too, on one row, and roll them back.")
def check(config: Path | None, **given: Any) -> int:
    """Look at settings, database, rights, columns and accounts; write nothing; say what to do."""
    from order_monitor.commands.check import run_check

    return run_check(config, **given)


@cli_group.command()
@takes_config
@click.argument("order_id", metavar="ID")
@flag("--now", "Ask the provider once, and show the answer without writing it.", "ask")
@as_json("The same as one JSON document.")
def explain(config: Path | None, **given: Any) -> int:
    """Tell one order's whole story: its row, its account, its times, its events, and why it is
    asked about or not.
    """
    from order_monitor.commands.explain import run_explain

    return run_explain(config, **given)


@cli_group.command()
@takes_config
@click.option("--open", is_flag=True, expose_value=False, help="Every open order, as without it.")
@flag("--overdue", "Only those past schedule.give_up_after.")
@flag("--stuck", "Only those that could not be written.")
@flag("--no-reference", "Only those without a reference.")
@flag("--no-provider", "Only those from codes or delivered by hand.")
@click.option("--account", metavar="NAME", help="Only those of this account.")
@click.option(
    "--older-than", type=Duration(), help="Only those sent at least this long ago, like 1h."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="How many at most."
)
@one_of("form", "json", "As JSON.")
@one_of("form", "csv", "As CSV.")
def orders(config: Path | None, *, limit: int, form: str | None, **wanted: Any) -> int:
    """List open orders, oldest first: all, or those that are all of what is asked for."""
    from order_monitor.commands.orders import Wanted, run_orders

    return run_orders(config, Wanted(**wanted), limit=limit, form=form or "table")


@cli_group.command()
@takes_config
@as_json("The status document, as /api/status gives it.")
def status(config: Path | None, *, as_json: bool) -> int:
    """Ask the running daemon how it is. Exit codes: 0 healthy, 1 not healthy, 4 no answer."""
    from order_monitor.commands.status import run_status

    return run_status(config, as_json=as_json)


@cli_group.command()
@takes_config
@click.option(
    "--every", type=Duration(), default=2.0, show_default=True, help="How often to look again."
)
def top(config: Path | None, *, every: float) -> int:
    """Watch the running daemon in the terminal, until Ctrl-C."""
    from order_monitor.commands.status import run_top

    return run_top(config, every=every)


@cli_group.command()
@takes_config
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--account", metavar="NAME", help="Every open order of this account.")
@flag("--overdue", "Every order past schedule.give_up_after.")
@flag("--stuck", "Every order that waits for review.")
@flag("--accept-settings", _ACCEPT.capitalize(), "accept")
@as_json("The lines as one JSON list.")
def ask(
    config: Path | None, ids: tuple[str, ...], *, accept: bool, as_json: bool, **wanted: Any
) -> int:
    """Ask the provider about orders now, regardless of their schedule, and write the answer as the
    daemon would.

    Never over a final state; an account's rate, its gate and a pause are obeyed. explain --now asks
    without writing.
    """
    from order_monitor.commands.ask import Choice, run_ask

    if not ids and not any(wanted.values()):
        raise click.UsageError("name orders, or give --account, --overdue or --stuck")
    if ids and any(wanted.values()):
        raise click.UsageError("give either orders, or --account, --overdue or --stuck")
    return run_ask(config, Choice(list(ids), **wanted), as_json=as_json, accept=accept)


@cli_group.command()
@takes_config
@click.argument("order_id", metavar="[ID]", required=False)
@click.option(
    "--kind", help="In place of ID: every order about which a review of this kind is open."
)
@click.option("--account", metavar="NAME", help="In place of ID: only those of this account.")
@click.option(
    "--older-than",
    type=Duration(),
    help="In place of ID: only those sent at least this long ago, like 2d.",
)
@flag("--dry-run", "Show which orders these are, and write nothing.")
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    help="There are N of them: without it a terminal asks.",
)
@one_of("how", "completed", "It was delivered.")
@one_of("how", "failed", "It was not, and the customer gets the money back.")
@one_of("how", "reopen", "Put an order that the daemon ended back to open.")
@one_of("how", "meant", "Its reference is its own, although another order has it too.")
@flag("--pin-stdin", "With --completed: read the PIN from standard input.", "with_pin")
@click.option(
    "--same-as",
    metavar="ORDER",
    help="With --completed: ORDER rightly has the same code [default PIN: ORDER's].",
)
@flag("--for-package", "With --same-as: that holds for all orders of its package.", "is_shared")
@click.option(
    "--reason",
    metavar="TEXT",
    default="",
    help="Why; kept in the event. Needed with all but --completed.",
)
@takes_name
@flag("--accept-settings", _ACCEPT.capitalize(), "accept")
def resolve(  # noqa: PLR0913 - one a flag
    config: Path | None,
    order_id: str | None,
    *,
    with_pin: bool,
    same_as: str | None,
    is_shared: bool,
    how: str | None,
    reason: str,
    by: str | None,
    accept: bool,
    **chosen: Any,
) -> int:
    """Decide one order by hand, by the daemon's own guarded path, with its event and webhook.

    Or many, each as one alone. Many are chosen by --kind, --account and --older-than: those that
    are all of it. They never get a PIN.
    """
    from order_monitor.commands.resolve import run_resolve
    from order_monitor.commands.resolve_many import Many, run_resolve_many

    if how is None:
        raise click.UsageError("give --completed, --failed or --reopen, or --meant")
    if how != "completed" and not reason.strip():
        raise click.UsageError(f"--{how} needs --reason")
    if with_pin and how != "completed":
        raise click.UsageError("--pin-stdin goes with --completed")
    if same_as is not None and how != "completed":
        raise click.UsageError("--same-as goes with --completed")
    if is_shared and same_as is None:
        raise click.UsageError("--for-package goes with --same-as")
    many = Many(**chosen)
    if mistake := many.mistake(order_id, with_pin=with_pin or same_as is not None):
        raise click.UsageError(mistake)
    decision: dict[str, Any] = {"how": how, "reason": reason, "by": by, "accept": accept}
    if order_id is None:
        return run_resolve_many(config, many, **decision)
    return run_resolve(
        config, order_id, with_pin=with_pin, same_as=same_as, is_shared=is_shared, **decision
    )


@cli_group.command()
@takes_config
@as_json("The list as JSON.")
@click.option(
    "--close",
    "order_id",
    metavar="ORDER",
    help="Close what is open about an order, and change nothing in it.",
)
@click.option("--kind", help="With --close: only what is of this kind.")
@click.option("--reason", metavar="TEXT", default="", help="With --close: why; kept in the list.")
@click.option("--by", metavar="NAME", help="With --close: who decides [default: the login name].")
def review(
    config: Path | None,
    *,
    as_json: bool,
    order_id: str | None,
    kind: str | None,
    reason: str,
    by: str | None,
) -> int:
    """List what an operator must decide: answers that contradict what is stored, or cannot be written;
    or close it.
    """
    from order_monitor.commands.review import run_close, run_review

    if order_id is None:
        if kind is not None or reason or by is not None:
            raise click.UsageError("--kind, --reason and --by go with --close")
        return run_review(config, as_json=as_json)
    if not reason.strip():
        raise click.UsageError("--close needs --reason")
    return run_close(config, order_id, kind=kind, reason=reason.strip(), by=by)


@cli_group.command()
@takes_config
@click.argument("account", required=False)
@flag("--first-start", "Let what was sent before the first start be failed by its age.")
@takes_name
def release(config: Path | None, account: str | None, *, first_start: bool, by: str | None) -> int:
    """Let through what the brake holds of an account, or with --first-start what that keeps from
    being failed by its age.

    What the brake holds is asked about once more, and ends if it is cancelled still.
    """
    from order_monitor.commands.release import run_release, run_release_first_start

    if (account is None) is not first_start:
        raise click.UsageError("name an account, or give --first-start")
    if account is None:
        return run_release_first_start(config, by=by)
    return run_release(config, account, by=by)


@cli_group.command()
@takes_config
@click.argument("account", required=False)
@flag("--ends", "Go on asking, but write no end: of this account, or of all without one.")
@click.option("--reason", metavar="TEXT", required=True, help="Why; shown with the account.")
@click.option(
    "--for",
    "seconds",
    type=Duration(),
    help="For how long, like 2h [default: until it is resumed].",
)
@takes_name
def pause(config: Path | None, account: str | None, *, ends: bool, **given: Any) -> int:
    """Ask an account nothing, or with --ends write no end, until it is resumed.

    Holds for every process and after a restart.
    """
    from order_monitor.commands.pause import run_pause

    if account is None and not ends:
        raise click.UsageError("name an account, or give --ends for the ends of all")
    return run_pause(config, account, ends=ends, **given)


@cli_group.command()
@takes_config
@click.argument("account", required=False)
@flag("--ends", "Let go what pause --ends holds: of this account, or of all without one.")
def resume(config: Path | None, account: str | None, *, ends: bool) -> int:
    """Ask an account again that was paused, its failures forgotten.

    Or with --ends write ends again.
    """
    from order_monitor.commands.pause import run_resume

    if account is None and not ends:
        raise click.UsageError("name an account, or give --ends")
    return run_resume(config, account, ends=ends)


@cli_group.command()
@takes_config
@click.argument("ids", metavar="[EVENT]...", type=int, nargs=-1)
@click.option(
    "--order", "order_id", metavar="ID", help="Every event of this order, by any of its names."
)
@click.option("--since", type=Duration(), help="Every event of this time, like 2h.")
@flag("--dead", "Every dead letter.")
@flag("--waiting", "Every event whose last try failed, without waiting for its next.")
@as_json("The list of dead letters as JSON.")
def replay(config: Path | None, *, as_json: bool, **chosen: Any) -> int:
    """Post events to the webhook again; with nothing chosen, list the dead letters."""
    from order_monitor.commands.replay import run_dead_letters, run_replay

    if any(value not in ((), None, False) for value in chosen.values()):
        return run_replay(config, **chosen)
    return run_dead_letters(config, as_json=as_json)


@cli_group.group()
def webhook() -> None:
    """Say where this shop's events are posted to."""


@webhook.command()
@takes_config
@takes_name
def adopt(config: Path | None, *, by: str | None) -> int:
    """Post this shop's events to this file's address from now on, and to no other.

    Those that wait too.
    """
    from order_monitor.commands.webhook import run_adopt

    return run_adopt(config, by=by)


@cli_group.command()
@takes_config
@flag("--test", "Send a test message to each of notify.urls, and say what each answered.")
@flag("--dead", "Say that the process has died: for OnFailure= in a systemd unit.")
@click.option(
    "--unit", metavar="NAME", help="With --dead: which unit [default: the one that systemd names]."
)
def notify(config: Path | None, *, test: bool, dead: bool, unit: str | None) -> int:
    """Send one message to the services of notify.urls.

    Exit code 1 where one of them did not take it.
    """
    from order_monitor.commands.notify import run_dead, run_test

    if test is dead:
        raise click.UsageError("give either --test or --dead")
    if unit is not None and not dead:
        raise click.UsageError("--unit goes with --dead")
    return run_test(config) if test else run_dead(config, unit)


@cli_group.command()
@takes_config
@click.option(
    "--since", type=Duration(), default="24h", show_default=True, help="The period, up to now."
)
@flag("--observed", "What another monitor did, compared with what was observed (observe = true).")
@one_of("form", "json", "As JSON.")
@one_of("form", "csv", "As CSV.")
def report(config: Path | None, *, since: float, observed: bool, form: str | None) -> int:
    """Report on a period, per account and package: sent, completed, failed, still open by age,
    overdue, how fast.
    """
    from order_monitor.commands.report import run_report
    from order_monitor.commands.report_observed import run_report_observed

    run = run_report_observed if observed else run_report
    return run(config, since=since, form=form or "table")


@cli_group.command()
@takes_config
@as_json("As JSON.")
def advise(config: Path | None, *, as_json: bool) -> int:
    """Compare backoff, a fixed interval and learned timing on the shop's own history, before you
    switch.
    """
    from order_monitor.commands.advise import run_advise

    return run_advise(config, as_json=as_json)


@cli_group.group("settings")
def settings_group() -> None:
    """The settings that decide money, as they are in force for every process of this shop."""


@settings_group.command("show")
@takes_config
@as_json("The list as JSON.")
def settings_show(config: Path | None, *, as_json: bool) -> int:
    """Show those in force next to this file's, and mark where they differ."""
    from order_monitor.commands.agreement import run_show

    return run_show(config, as_json=as_json)


@settings_group.command("adopt")
@takes_config
@takes_name
def settings_adopt(config: Path | None, *, by: str | None) -> int:
    """Put this file's in force.

    A running daemon with others asks nothing until it is restarted or reloaded.
    """
    from order_monitor.commands.agreement import run_adopt

    return run_adopt(config, by=by)


@cli_group.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion of this command for a shell: order-monitor completion bash >
    /etc/bash_completion.d/order-monitor.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    show(*kind(cli_group, {}, "order-monitor", "_ORDER_MONITOR_COMPLETE").source().split("\n"))


@cli_group.command()
def man() -> None:
    """Print the manual as a man page: order-monitor man > order-monitor.1."""
    from order_monitor.commands.man_page import page

    show(*page(cli_group).split("\n"))


@cli_group.command()
@click.option(
    "--orders",
    type=click.IntRange(1, 100_000),
    default=300,
    show_default=True,
    help="How many orders.",
)
@click.option(
    "--seed", type=int, default=7, show_default=True, help="Another seed is another story."
)
@click.option(
    "--seconds",
    type=click.IntRange(3, 3600),
    default=20,
    show_default=True,
    help="How long the story takes.",
)
@flag("--keep-running", "Leave everything running after the end, until Ctrl-C.")
def demo(**given: Any) -> int:
    """Show the whole thing with nothing configured, on a PostgreSQL and a provider of its own.

    Nothing is left behind.
    """
    from order_monitor.commands.demo import run_demo

    return run_demo(**given)


def cli(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        code = cli_group.main(
            arguments,
            prog_name="order-monitor",
            complete_var="_ORDER_MONITOR_COMPLETE",
            standalone_mode=False,
        )
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        text = io.StringIO()
        # Not on stderr: click bypasses a replaced stderr if its encoding is ASCII.
        error.show(text)
        say(*text.getvalue().rstrip("\n").split("\n"))
        return error.exit_code
    except OrderMonitorError as error:
        return report_error(error)
    return code if isinstance(code, int) else 0
