"""What several commands take on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])


class Duration(click.ParamType[float]):
    """Seconds, or a number with a unit."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:  # noqa: ANN401 - click's
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
    """Let every command take ``--config``, before or after its own name."""
    option = click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=None,
        help="The settings [default: monitor.toml here, then /etc/order-monitor/monitor.toml].",
    )
    return option(command)


def config_of(ctx: click.Context, own: Path | None) -> Path | None:
    """Return the file that was named, after a command's own name or before it."""
    return own if own is not None else ctx.obj
