"""The command line itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from order_monitor import __version__
from order_monitor.commands.compose import report
from order_monitor.errors import OrderMonitorError

_F = TypeVar("_F", bound=Callable[..., Any])


class _Duration(click.ParamType[float]):
    """Seconds, or a number with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
        from order_monitor.settings import parse_seconds  # noqa: PLC0415 - only when it is used

        try:
            seconds = parse_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail("must be more than 0", param, ctx)
        return seconds


def _takes_config(command: _F) -> _F:
    """Let every command take ``--config``, before or after its own name."""
    option = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="The settings [default: monitor.toml here, then /etc/order-monitor/monitor.toml].",
    )
    return option(command)


def _config(ctx: click.Context, own: Path | None) -> Path | None:
    return own if own is not None else ctx.obj


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@_takes_config
@click.option("--once", is_flag=True, help="Make one pass over every open order, print a summary, and exit.")
@click.option("--json", "as_json", is_flag=True, help="With --once: the summary as one line of JSON.")
@click.option("--every", type=_Duration(), help="With --once: ask only what came due in this time, like 60s.")
@click.version_option(__version__, "-V", "--version", prog_name="order-monitor")
@click.pass_context
def cli_group(ctx: click.Context, config: Path | None, *, once: bool, as_json: bool, every: float | None) -> None:
    """Find out how open orders ended, and write it into the shop's database.

    Without a command: run until stopped. Exit codes: 0 done, 1 something could not be done, 2 bad usage or bad settings,
    3 the database cannot be reached.
    """
    ctx.obj = config
    if (as_json or every) and not once:
        msg = "--json and --every go with --once"
        raise click.UsageError(msg)
    if ctx.invoked_subcommand is not None:
        if once:
            msg = f"--once does not go with {ctx.invoked_subcommand}"
            raise click.UsageError(msg)
        return
    if once:
        from order_monitor.commands.once import run_once  # noqa: PLC0415

        ctx.exit(run_once(config, as_json=as_json, every=every))
    from order_monitor.commands.daemon import run_daemon  # noqa: PLC0415

    ctx.exit(run_daemon(config))


@cli_group.command()
@_takes_config
@click.option("--dry-run", is_flag=True, help="Print the SQL that is missing, and change nothing.")
@click.option("--format", "form", type=click.Choice(["sql", "django"]), default="sql", help="With --dry-run: the form.")
@click.pass_context
def migrate(ctx: click.Context, config: Path | None, *, dry_run: bool, form: str) -> None:
    """Add to the shop's database what order-monitor needs: a column and indexes. Safe to repeat."""
    from order_monitor.commands.migrate import run_migrate  # noqa: PLC0415

    ctx.exit(run_migrate(_config(ctx, config), dry_run=dry_run or form == "django", django=form == "django"))


@cli_group.command()
@_takes_config
@click.option("--json", "as_json", is_flag=True, help="The lines as one JSON list.")
@click.pass_context
def check(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Look at settings, database, rights, columns and accounts; write nothing; say what to do."""
    from order_monitor.commands.check import run_check  # noqa: PLC0415

    ctx.exit(run_check(_config(ctx, config), as_json=as_json))


@cli_group.command()
@_takes_config
@click.argument("order_id", metavar="ID")
@click.option("--now", "ask", is_flag=True, help="Ask the provider once, and show the answer without writing it.")
@click.option("--json", "as_json", is_flag=True, help="The same as one JSON document.")
@click.pass_context
def explain(ctx: click.Context, config: Path | None, order_id: str, *, ask: bool, as_json: bool) -> None:
    """Tell one order's whole story: its row, its account, its times, its events, and why it is asked about or not."""
    from order_monitor.commands.explain import run_explain  # noqa: PLC0415

    ctx.exit(run_explain(_config(ctx, config), order_id, ask=ask, as_json=as_json))


@cli_group.command()
@_takes_config
@click.option("--json", "as_json", is_flag=True, help="The status document, as /api/status gives it.")
@click.pass_context
def status(ctx: click.Context, config: Path | None, *, as_json: bool) -> None:
    """Ask the running daemon how it is. Exit codes: 0 healthy, 1 not healthy, 4 nobody answers."""
    from order_monitor.commands.status import run_status  # noqa: PLC0415

    ctx.exit(run_status(_config(ctx, config), as_json=as_json))


@cli_group.command()
@_takes_config
@click.option("--every", type=_Duration(), default=2.0, show_default=True, help="How often to look again.")
@click.pass_context
def top(ctx: click.Context, config: Path | None, *, every: float) -> None:
    """Watch the running daemon in the terminal, until Ctrl-C."""
    from order_monitor.commands.status import run_top  # noqa: PLC0415

    ctx.exit(run_top(_config(ctx, config), every=every))


@cli_group.command()
@click.option("--orders", type=click.IntRange(1, 100_000), default=300, show_default=True, help="How many orders.")
@click.option("--seed", type=int, default=7, show_default=True, help="Another seed is another story.")
@click.option(
    "--seconds", type=click.IntRange(3, 3600), default=20, show_default=True, help="How long the story takes."
)
@click.option("--keep-running", is_flag=True, help="Leave everything running after the end, until Ctrl-C.")
@click.pass_context
def demo(ctx: click.Context, *, orders: int, seed: int, seconds: int, keep_running: bool) -> None:
    """Show the whole thing with nothing configured, on a PostgreSQL and a provider of its own; nothing is left behind."""
    from order_monitor.commands.demo import run_demo  # noqa: PLC0415

    ctx.exit(run_demo(orders=orders, seed=seed, seconds=seconds, keep_running=keep_running))


def cli(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    try:
        code = cli_group.main(arguments, prog_name="order-monitor", standalone_mode=False)
    except click.exceptions.Abort:
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OrderMonitorError as error:
        return report(error)
    return code if isinstance(code, int) else 0
