"""A machine booted by systemd, with deploy's units unchanged, the image's program, and this
machine's network.
"""

import asyncio
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.shipped.container import REPOSITORY, Root, children

UNITS = sorted(
    path for path in (REPOSITORY / "deploy").iterdir() if path.suffix in (".service", ".timer")
)
POWER_OFF = signal.SIGRTMIN + 4
"""To process 1: systemd(1)."""
QUIET = (
    "systemd.mask=apt-daily.timer",
    "systemd.mask=apt-daily-upgrade.timer",
    "systemd.mask=console-getty.service",
)


class CommandFailedError(AssertionError):
    """A command in the machine has failed; the text is its output."""


class Machine:
    """Commands run from outside, by entering its namespaces."""

    def __init__(self, first: int, settings: Path) -> None:
        self._first = first
        self.settings = settings
        """Its /etc/order-monitor."""

    async def run(self, *command: str, given: str = "") -> str:
        """Run a command as root; return its output."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            *_inside(self._first), *command, stdin=pipe, stdout=pipe, stderr=pipe
        )
        async with asyncio.timeout(90):
            out, err = await process.communicate(given.encode())
        if process.returncode:
            raise CommandFailedError(
                f"{' '.join(command)}: {process.returncode}: {(out + err).decode()}"
            )
        return out.decode()

    async def systemctl(self, *arguments: str) -> str:
        return await self.run("systemctl", *arguments)

    async def show(self, unit: str) -> dict[str, str]:
        """Return the properties of a unit."""
        lines = (await self.systemctl("show", unit)).splitlines()
        return dict(line.split("=", 1) for line in lines)

    async def becomes(self, unit: str, seconds: float = 30.0, **wanted: str) -> dict[str, str]:
        """Wait until a unit's properties are these."""
        found: dict[str, str] = {}
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    found = await self.show(unit)
                    if all(found.get(name) == value for name, value in wanted.items()):
                        return found
                    await asyncio.sleep(0.1)
        told = "\n".join(str(line.get("MESSAGE")) for line in (await self.journal(unit))[-20:])
        raise AssertionError(
            f"{unit}: {wanted} wanted, { {n: found.get(n) for n in wanted} } found\n{told}"
        )

    async def journal(self, unit: str) -> list[dict[str, Any]]:
        """Return the journal of a unit, its own lines and systemd's, oldest first."""
        await self.run("journalctl", "--sync")
        lines = (
            await self.run("journalctl", "--output=json", "--all", f"--unit={unit}")
        ).splitlines()
        return [json.loads(line) for line in lines]

    async def events(self, unit: str) -> list[dict[str, Any]]:
        """Return the log's events, each with the ``priority`` that the journal has it under."""
        lines = [line for line in await self.journal(unit) if str(line["MESSAGE"]).startswith("{")]
        return [
            {**json.loads(line["MESSAGE"]), "priority": int(line["PRIORITY"])} for line in lines
        ]

    async def drop_in(self, unit: str, text: str) -> None:
        """Change a unit until `reset`."""
        folder = f"/run/systemd/system/{unit}.d"
        await self.run("sh", "-c", f"mkdir -p {folder} && cat > {folder}/trial.conf", given=text)
        await self.systemctl("daemon-reload")

    async def reset(self) -> None:
        """Stop all of our units and reset their state."""
        await self.systemctl("stop", "order-monitor*")
        await self.run("sh", "-c", "rm -rf /run/systemd/system/order-monitor*.d")
        await self.systemctl("daemon-reload")
        await self.systemctl("reset-failed")
        await self.run("journalctl", "--rotate", "--vacuum-time=1us")


@contextmanager
def booted(root: Root, settings: Path) -> Iterator[Machine]:
    """Boot build/machine; its changes are discarded afterwards."""
    command = [
        *(
            "systemd-nspawn",
            "--register=no",
            "--keep-unit",
            "--quiet",
            "--console=read-only",
            "--volatile=overlay",
        ),
        f"--directory={REPOSITORY / 'build' / 'machine'}",
        f"--bind-ro={root.path}/opt/order-monitor:/opt/order-monitor",
        f"--bind-ro={settings}:/etc/order-monitor",
        *(f"--bind-ro={path}:/etc/systemd/system/{path.name}" for path in UNITS),
        f"--bind-ro={REPOSITORY}/deploy/order-monitor-as-operator:/usr/local/sbin/order-monitor-as-operator",
        *("--boot", *QUIET),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        yield Machine(_first_of(process), settings)
    finally:
        for first in children(process.pid) if process.poll() is None else ():
            os.kill(first, POWER_OFF)
        process.wait(60)


def _first_of(process: subprocess.Popen[bytes]) -> int:
    """Wait until the boot is complete; return the outside id of the machine's process 1."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        assert process.poll() is None, "systemd-nspawn has ended"
        for first in children(process.pid):
            command = [*_inside(first), "systemctl", "is-system-running"]
            if subprocess.run(command, capture_output=True, check=False).returncode == 0:
                return first
        time.sleep(0.1)
    raise AssertionError("the machine did not come up within a minute")


def _inside(first: int) -> tuple[str, ...]:
    return ("nsenter", f"--target={first}", "--all", "--wd=/")
