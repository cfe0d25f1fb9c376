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
    """Accept ``--config`` for every command, before or after the command's name."""
    option = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="The settings [default: monitor.toml here, then /etc/order-monitor/monitor.toml].",
    )
    return option(command)


def config_of(ctx: click.Context, own: Path | None) -> Path | None:
    """Return the given settings file, from after the command's name or before it."""
    return own if own is not None else ctx.obj
