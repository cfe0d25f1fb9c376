"""Command-line options shared by several commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """A duration: seconds, or a number with a unit."""

    name = "duration"

    def convert(
        self,
        value: Any,  # noqa: ANN401 - click's
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> float:
        """Return the seconds."""
        from order_monitor.settings.types import parse_seconds  # noqa: PLC0415 - only where a duration is given: --help comes at once

        try:
            seconds = parse_seconds(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        if seconds <= 0:
            self.fail("must be more than 0", param, ctx)
        return seconds


def takes_config(command: _F) -> _F:
    """Accept ``--config`` before or after the command's name; the one after it counts."""
    option = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_config_of,
        help="The settings [default: monitor.toml here, then /etc/order-monitor/monitor.toml].",
    )
    return option(command)


def _config_of(ctx: click.Context, _: click.Parameter, given: Path | None) -> Path | None:
    if given is not None:
        ctx.obj = given
    path: Path | None = ctx.obj
    return path


def takes_name(command: _F) -> _F:
    """Accept ``--by``: who decides."""
    return click.option("--by", metavar="NAME", help="Who decides [default: the login name].")(
        command
    )


def flag(name: str, text: str, parameter: str | None = None) -> Callable[[_F], _F]:
    """Accept an option without a value, as ``parameter`` if that is not its name."""
    return click.option(*filter(None, (name, parameter)), is_flag=True, help=text)


def as_json(text: str) -> Callable[[_F], _F]:
    """Accept ``--json``."""
    return flag("--json", text, "as_json")


def one_of(parameter: str, value: str, text: str) -> Callable[[_F], _F]:
    """Accept ``--VALUE``: one of the values of a ``parameter``."""
    return click.option(f"--{value}", parameter, flag_value=value, help=text)
