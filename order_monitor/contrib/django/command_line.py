"""Runs the ``order-monitor`` command for decisions made by people.

It runs the command instead of calling the function behind it: the command uses the daemon's role
and settings, which a web server does not need; its output is free of PINs and secrets; and if it
hangs, it may kill its own process, which a web server must never do.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from order_monitor.contrib.django.conf import Config


@dataclass(frozen=True, slots=True)
class Said:
    """A command's output and exit code."""

    code: int
    text: str


def run(
    config: Config,
    arguments: list[str],
    *,
    given: str | None = None,
    env: Mapping[str, str] | None = None,
) -> Said:
    """Run ``order-monitor`` with these arguments and ``given`` as its input; return its output.

    No shell is involved. A command that exceeds its time limit is killed, with exit code 124.
    """
    place = ["--config", config.config] if config.config else []
    name, *more = arguments
    try:
        done = subprocess.run(  # noqa: S603 - the project's own setting, and arguments as a list
            [*config.command, name, *place, *more],
            input=given or "",
            capture_output=True,
            text=True,
            errors="replace",
            timeout=config.command_timeout,
            check=False,
            env={**os.environ, **(env or {})},
        )
    except OSError as error:
        return Said(127, f"order-monitor cannot be run: {error}")
    except subprocess.TimeoutExpired:
        return Said(124, f"order-monitor took longer than {config.command_timeout:g} s")
    return Said(done.returncode, (done.stdout + done.stderr).strip())
