"""Defines the command line."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, Final

import click

from order_monitor import __version__
from order_monitor.commands.exits import report as report_error
from order_monitor.commands.options import Duration, config_of, takes_config
from order_monitor.core.errors import OrderMonitorError
from order_monitor.tell.streams import say

_ACCEPT: Final = "where settings that decide money differ from those in force, use those."


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@takes_config
@click.option(
    "--once", is_flag=True, help="Make one pass over every open order, print a summary, and exit."
)
@click.option(
    "--json", "as_json", is_flag=True, help="With --once: the summary as one line of JSON."
)
@click.option(
    "--every", type=Duration(), help="With --once: ask only what came due in this time, like 60s."
)
@click.option(
    "--quiet", is_flag=True, help="With --once: say nothing when all went well, for cron."
)
@click.option("--accept-settings", "accept", is_flag=True, help=f"With --once: {_ACCEPT}")
@click.version_option(__version__, "-V", "--version", prog_name="order-monitor")
@click.pass_context
def cli_group(
    ctx: click.Context,
    config: Path | None,
    *,
    once: bool,
    as_json: bool,
    every: float | None,
    quiet: bool,
    accept: bool,
) -> None:
    """Find out how open orders ended, and write it into the shop's database.

    Without a command: run until stopped. Exit codes: 0 done, 1 something could not be done, 2 bad
    usage or bad settings, 3 the database cannot be reached.
    """
    ctx.obj = config
    if (as_json or every or quiet or accept) and not once:
        msg = "--json, --every, --quiet and --accept-settings go with --once"
        raise click.UsageError(msg)
    if ctx.invoked_subcommand is not None:
        if once:
            msg = f"--once does not go with {ctx.invoked_subcommand}"
            raise click.UsageError(msg)
        return
    if once:
        from order_monitor.commands.once import Wish, run_once

        ctx.exit(run_once(config, Wish(as_json=as_json, every=every, quiet=quiet, accept=accept)))
    from order_monitor.commands.daemon import run_daemon

    ctx.exit(run_daemon(config))


@cli_group.command()
@takes_config
@click.option("--dry-run", is_flag=True, help="Print the SQL that is missing, and change nothing.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["sql", "django"]),
    default="sql",
    help="With --dry-run: the form.",
)
@click.pass_context
def migrate(ctx: click.Context, config: Path | None, *, dry_run: bool, form: str) -> None:
    """Add to the shop's database what order-monitor needs: a column, indexes and its own tables.

    Safe to repeat.
    """
    from order_monitor.commands.migrate import run_migrate

    ctx.exit(
        run_migrate(
            config_of(ctx, config), dry_run=dry_run or form == "django", django=form == "django"
        )
    )


@cli_group.command()
@takes_config
@click.option("--json", "as_json", is_flag=True, help="The lines as one JSON list.")
@click.option(
    "--rehearse", is_flag=True, help="Try the writes too, on one row, and roll them back."
)
@click.pass_context
def check(ctx: click.Context, config: Path | None, *, as_json: bool, rehearse: bool) -> None:
    """Look at settings, database, rights, columns and accounts; write nothing; say what to do."""
    from order_monitor.commands.check import run_check

    ctx.exit(run_check(config_of(ctx, config), as_json=as_json, rehearse=rehearse))


@cli_group.command()
@takes_config
@click.argument("order_id", metavar="ID")
@click.option(
    "--now",
    "ask",
    is_flag=True,
    help="Ask the provider once, and show the answer without writing it.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON document.")
@click.pass_context
def explain(
    ctx: click.Context, config: Path | None, order_id: str, *, ask: bool, as_json: bool
) -> None:
    """Tell one order's whole story: its row, its account, its times, its events, and why it is
    asked about or not.
    """
    from order_monitor.commands.explain import run_explain

    ctx.exit(run_explain(config_of(ctx, config), order_id, ask=ask, as_json=as_json))


@cli_group.command()
@takes_config
@click.option("--open", is_flag=True, expose_value=False, help="Every open order, as without it.")
@click.option("--overdue", is_flag=True, help="Only those past schedule.give_up_after.")
@click.option("--stuck", is_flag=True, help="Only those that could not be written.")
@click.option("--no-reference", is_flag=True, help="Only those without a reference.")
@click.option("--no-provider", is_flag=True, help="Only those from codes or delivered by hand.")
@click.option("--account", metavar="NAME", help="Only those of this account.")
@click.option(
    "--older-than", type=Duration(), help="Only those sent at least this long ago, like 1h."
)
@click.option(
    "--limit", type=click.IntRange(min=1), default=1000, show_default=True, help="How many at most."
)
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
@click.pass_context
def orders(
    ctx: click.Context,
    /,
    config: Path | None,
    *,
    limit: int,
    form: str | None,
    **wanted: Any,  # noqa: ANN401 - by `Wanted`
) -> None:
    """List open orders, oldest first: all, or those that are all of what is asked for."""
    from order_monitor.commands.orders import Wanted, run_orders

    ctx.exit(
        run_orders(config_of(ctx, config), Wanted(**wanted), limit=limit, form=form or "table")
    )


@cli_group.command()
@takes_config
@click.option(
    "--json", "as_json", is_flag=True, help="The status document, as /api/status gives it."
)
@click.pass_context
def status(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Ask the running daemon how it is. Exit codes: 0 healthy, 1 not healthy, 4 no answer."""
    from order_monitor.commands.status import run_status

    ctx.exit(run_status(config_of(ctx, config), as_json=as_json))


@cli_group.command()
@takes_config
@click.option(
    "--every", type=Duration(), default=2.0, show_default=True, help="How often to look again."
)
@click.pass_context
def top(ctx: click.Context, config: Path | None, *, every: float) -> None:
    """Watch the running daemon in the terminal, until Ctrl-C."""
    from order_monitor.commands.status import run_top

    ctx.exit(run_top(config_of(ctx, config), every=every))


@cli_group.command()
@takes_config
@click.argument("ids", metavar="[ID]...", nargs=-1)
@click.option("--account", metavar="NAME", help="Every open order of this account.")
@click.option("--overdue", is_flag=True, help="Every order past schedule.give_up_after.")
@click.option("--stuck", is_flag=True, help="Every order that waits for review.")
@click.option("--accept-settings", "accept", is_flag=True, help=_ACCEPT.capitalize())
@click.option("--json", "as_json", is_flag=True, help="The lines as one JSON list.")
@click.pass_context
def ask(
    ctx: click.Context,
    /,
    config: Path | None,
    ids: tuple[str, ...],
    *,
    accept: bool,
    as_json: bool,
    **wanted: Any,  # noqa: ANN401 - by `Choice`
) -> None:
    """Ask the provider about orders now, regardless of their schedule, and write the answer as the
    daemon would.

    Never over a final state; an account's rate, its gate and a pause are obeyed. explain --now asks
    without writing.
    """
    from order_monitor.commands.ask import Choice, run_ask

    if not ids and not any(wanted.values()):
        msg = "name orders, or give --account, --overdue or --stuck"
        raise click.UsageError(msg)
    if ids and any(wanted.values()):
        msg = "give either orders, or --account, --overdue or --stuck"
        raise click.UsageError(msg)
    ctx.exit(
        run_ask(config_of(ctx, config), Choice(list(ids), **wanted), as_json=as_json, accept=accept)
    )


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
@click.option("--dry-run", is_flag=True, help="Show which orders these are, and write nothing.")
@click.option(
    "--confirm",
    type=click.IntRange(min=0),
    metavar="N",
    help="There are N of them: without it a terminal asks.",
)
@click.option("--completed", "how", flag_value="completed", help="It was delivered.")
@click.option(
    "--failed", "how", flag_value="failed", help="It was not, and the customer gets the money back."
)
@click.option(
    "--reopen", "how", flag_value="reopen", help="Put an order that the daemon ended back to open."
)
@click.option(
    "--meant",
    "how",
    flag_value="meant",
    help="Its reference is its own, although another order has it too.",
)
@click.option(
    "--pin-stdin", is_flag=True, help="With --completed: read the PIN from standard input."
)
@click.option(
    "--same-as",
    metavar="ORDER",
    help="With --completed: ORDER rightly has the same code [default PIN: ORDER's].",
)
@click.option(
    "--for-package", is_flag=True, help="With --same-as: that holds for all orders of its package."
)
@click.option(
    "--reason",
    metavar="TEXT",
    default="",
    help="Why; kept in the event. Needed with all but --completed.",
)
@click.option("--by", metavar="NAME", help="Who decides [default: the login name].")
@click.option("--accept-settings", "accept", is_flag=True, help=_ACCEPT.capitalize())
@click.pass_context
def resolve(  # noqa: PLR0913 - one a flag
    ctx: click.Context,
    /,
    config: Path | None,
    order_id: str | None,
    *,
    how: str | None,
    pin_stdin: bool,
    same_as: str | None,
    for_package: bool,
    reason: str,
    by: str | None,
    accept: bool,
    **chosen: Any,  # noqa: ANN401 - by `Many`
) -> None:
    """Decide one order by hand, by the daemon's own guarded path, with its event and webhook.

    Or many, each as one alone. Many are chosen by --kind, --account and --older-than: those that
    are all of it. They never get a PIN.
    """
    from order_monitor.commands.resolve import run_resolve
    from order_monitor.commands.resolve_many import Many, run_resolve_many

    if how is None:
        msg = "give --completed, --failed or --reopen, or --meant"
        raise click.UsageError(msg)
    if how != "completed" and not reason.strip():
        msg = f"--{how} needs --reason"
        raise click.UsageError(msg)
    if pin_stdin and how != "completed":
        msg = "--pin-stdin goes with --completed"
        raise click.UsageError(msg)
    if same_as is not None and how != "completed":
        msg = "--same-as goes with --completed"
        raise click.UsageError(msg)
    if for_package and same_as is None:
        msg = "--for-package goes with --same-as"
        raise click.UsageError(msg)
    many = Many(**chosen)
    if mistake := many.mistake(order_id, with_pin=pin_stdin or same_as is not None):
        raise click.UsageError(mistake)
    if order_id is None:
        ctx.exit(
            run_resolve_many(config_of(ctx, config), many, how, reason=reason, by=by, accept=accept)
        )
    more: dict[str, Any] = {
        "with_pin": pin_stdin,
        "same_as": same_as,
        "is_shared": for_package,
        "accept": accept,
    }
    ctx.exit(run_resolve(config_of(ctx, config), order_id, how, reason=reason, by=by, **more))


@cli_group.command()
@takes_config
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
@click.option(
    "--close",
    "order_id",
    metavar="ORDER",
    help="Close what is open about an order, and change nothing in it.",
)
@click.option("--kind", help="With --close: only what is of this kind.")
@click.option("--reason", metavar="TEXT", default="", help="With --close: why; kept in the list.")
@click.option("--by", metavar="NAME", help="With --close: who decides [default: the login name].")
@click.pass_context
def review(
    ctx: click.Context,
    config: Path | None,
    *,
    as_json: bool,
    order_id: str | None,
    kind: str | None,
    reason: str,
    by: str | None,
) -> None:
    """List what an operator must decide: answers that contradict what is stored, or cannot be written;
    or close it.
    """
    from order_monitor.commands.review import run_close, run_review

    if order_id is None:
        if kind is not None or reason or by is not None:
            msg = "--kind, --reason and --by go with --close"
            raise click.UsageError(msg)
        ctx.exit(run_review(config_of(ctx, config), as_json=as_json))
    if not reason.strip():
        msg = "--close needs --reason"
        raise click.UsageError(msg)
    ctx.exit(run_close(config_of(ctx, config), order_id, kind=kind, reason=reason, by=by))


@cli_group.command()
@takes_config
@click.argument("account", required=False)
@click.option(
    "--first-start",
    is_flag=True,
    help="Let what was sent before the first start be failed by its age.",
)
@click.option("--by", metavar="NAME", help="Who decides [default: the login name].")
@click.pass_context
def release(
    ctx: click.Context,
    config: Path | None,
    account: str | None,
    *,
    first_start: bool,
    by: str | None,
) -> None:
    """Let through what the brake holds of an account, or with --first-start what that keeps from
    being failed by its age.

    What the brake holds is asked about once more, and ends if it is cancelled still.
    """
    from order_monitor.commands.first_start import run_release_first_start
    from order_monitor.commands.release import run_release

    if (account is None) is not first_start:
        msg = "name an account, or give --first-start"
        raise click.UsageError(msg)
    if account is None:
        ctx.exit(run_release_first_start(config_of(ctx, config), by))
    ctx.exit(run_release(config_of(ctx, config), account, by=by))


@cli_group.command()
@takes_config
@click.argument("account", required=False)
@click.option(
    "--ends",
    is_flag=True,
    help="Go on asking, but write no end: of this account, or of all without one.",
)
@click.option("--reason", metavar="TEXT", required=True, help="Why; shown with the account.")
@click.option(
    "--for",
    "seconds",
    type=Duration(),
    help="For how long, like 2h [default: until it is resumed].",
)
@click.option("--by", metavar="NAME", help="Who decides [default: the login name].")
@click.pass_context
def pause(
    ctx: click.Context,
    config: Path | None,
    account: str | None,
    *,
    ends: bool,
    reason: str,
    seconds: float | None,
    by: str | None,
) -> None:
    """Ask an account nothing, or with --ends write no end, until it is resumed.

    Holds for every process and after a restart.
    """
    from order_monitor.commands.pause import run_pause

    if account is None and not ends:
        msg = "name an account, or give --ends for the ends of all"
        raise click.UsageError(msg)
    ctx.exit(
        run_pause(config_of(ctx, config), account, ends=ends, reason=reason, by=by, seconds=seconds)
    )


@cli_group.command()
@takes_config
@click.argument("account", required=False)
@click.option(
    "--ends",
    is_flag=True,
    help="Let go what pause --ends holds: of this account, or of all without one.",
)
@click.pass_context
def resume(ctx: click.Context, config: Path | None, account: str | None, *, ends: bool) -> None:
    """Ask an account again that was paused, its failures forgotten.

    Or with --ends write ends again.
    """
    from order_monitor.commands.pause import run_resume

    if account is None and not ends:
        msg = "name an account, or give --ends"
        raise click.UsageError(msg)
    ctx.exit(run_resume(config_of(ctx, config), account, ends=ends))


@cli_group.command()
@takes_config
@click.argument("ids", metavar="[EVENT]...", type=int, nargs=-1)
@click.option(
    "--order", "order_id", metavar="ID", help="Every event of this order, by any of its names."
)
@click.option("--since", type=Duration(), help="Every event of this time, like 2h.")
@click.option("--dead", is_flag=True, help="Every dead letter.")
@click.option(
    "--waiting",
    is_flag=True,
    help="Every event whose last try failed, without waiting for its next.",
)
@click.option("--json", "as_json", is_flag=True, help="The list of dead letters as JSON.")
@click.pass_context
def replay(
    ctx: click.Context,
    config: Path | None,
    ids: tuple[int, ...],
    *,
    order_id: str | None,
    since: float | None,
    dead: bool,
    waiting: bool,
    as_json: bool,
) -> None:
    """Post events to the webhook again; with nothing chosen, list the dead letters."""
    from order_monitor.commands.replay import run_replay

    path = config_of(ctx, config)
    ctx.exit(
        run_replay(
            path,
            list(ids),
            order_id=order_id,
            since=since,
            dead=dead,
            waiting=waiting,
            as_json=as_json,
        )
    )


@cli_group.group()
def webhook() -> None:
    """Say where this shop's events are posted to."""


@webhook.command()
@takes_config
@click.option("--by", metavar="NAME", help="Who decides [default: the login name].")
@click.pass_context
def adopt(ctx: click.Context, config: Path | None, *, by: str | None) -> None:
    """Post this shop's events to this file's address from now on, and to no other.

    Those that wait too.
    """
    from order_monitor.commands.webhook import run_adopt

    ctx.exit(run_adopt(config_of(ctx, config), by=by))


@cli_group.command()
@takes_config
@click.option(
    "--test",
    is_flag=True,
    help="Send a test message to each of notify.urls, and say what each answered.",
)
@click.option(
    "--dead", is_flag=True, help="Say that the process has died: for OnFailure= in a systemd unit."
)
@click.option(
    "--unit", metavar="NAME", help="With --dead: which unit [default: the one that systemd names]."
)
@click.pass_context
def notify(
    ctx: click.Context, config: Path | None, *, test: bool, dead: bool, unit: str | None
) -> None:
    """Send one message to the services of notify.urls.

    Exit code 1 where one of them did not take it.
    """
    from order_monitor.commands.notify import run_dead, run_test

    if test is dead:
        msg = "give either --test or --dead"
        raise click.UsageError(msg)
    if unit is not None and not dead:
        msg = "--unit goes with --dead"
        raise click.UsageError(msg)
    given = config_of(ctx, config)
    ctx.exit(run_test(given) if test else run_dead(given, unit))


@cli_group.command()
@takes_config
@click.option(
    "--since", type=Duration(), default="24h", show_default=True, help="The period, up to now."
)
@click.option(
    "--observed",
    is_flag=True,
    help="What another monitor did, compared with what was observed (observe = true).",
)
@click.option("--json", "form", flag_value="json", help="As JSON.")
@click.option("--csv", "form", flag_value="csv", help="As CSV.")
@click.pass_context
def report(
    ctx: click.Context, config: Path | None, *, since: float, observed: bool, form: str | None
) -> None:
    """Report on a period, per account and package: sent, completed, failed, still open by age,
    overdue, how fast.
    """
    from order_monitor.commands.report import run_report
    from order_monitor.commands.report_observed import run_report_observed

    run = run_report_observed if observed else run_report
    ctx.exit(run(config_of(ctx, config), since=since, form=form or "table"))


@cli_group.command()
@takes_config
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_context
def advise(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Compare backoff, a fixed interval and learned timing on the shop's own history, before you
    switch.
    """
    from order_monitor.commands.advise import run_advise

    ctx.exit(run_advise(config_of(ctx, config), as_json=as_json))


@cli_group.group("settings")
def settings_group() -> None:
    """The settings that decide money, as they are in force for every process of this shop."""


@settings_group.command("show")
@takes_config
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
@click.pass_context
def settings_show(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Show those in force next to this file's, and mark where they differ."""
    from order_monitor.commands.agreement import run_show

    ctx.exit(run_show(config_of(ctx, config), as_json=as_json))


@settings_group.command("adopt")
@takes_config
@click.option("--by", metavar="NAME", help="Who decides [default: the login name].")
@click.pass_context
def settings_adopt(ctx: click.Context, config: Path | None, *, by: str | None) -> None:
    """Put this file's in force.

    A running daemon with others asks nothing until it is restarted or reloaded.
    """
    from order_monitor.commands.agreement import run_adopt

    ctx.exit(run_adopt(config_of(ctx, config), by=by))


@cli_group.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion of this command for a shell: order-monitor completion bash >
    /etc/bash_completion.d/order-monitor.
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    assert kind is not None
    say(
        *kind(cli_group, {}, "order-monitor", "_ORDER_MONITOR_COMPLETE").source().split("\n"),
        to_stdout=True,
    )


@cli_group.command()
def man() -> None:
    """Print the manual as a man page: order-monitor man > order-monitor.1."""
    from order_monitor.commands.man_page import page

    say(*page(cli_group).split("\n"), to_stdout=True)


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
@click.option(
    "--keep-running", is_flag=True, help="Leave everything running after the end, until Ctrl-C."
)
@click.pass_context
def demo(ctx: click.Context, *, orders: int, seed: int, seconds: int, keep_running: bool) -> None:
    """Show the whole thing with nothing configured, on a PostgreSQL and a provider of its own.

    Nothing is left behind.
    """
    from order_monitor.commands.demo import run_demo

    ctx.exit(run_demo(orders=orders, seed=seed, seconds=seconds, keep_running=keep_running))


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
