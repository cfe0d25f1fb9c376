"""The command line: bad usage, bad settings and failures, each with its exit code, no traceback and
no secret.
"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from order_monitor import __version__
from tests.support import launch
from tests.support.settings_files import CANARY, GOOD

pytestmark = pytest.mark.outside


Done = subprocess.CompletedProcess[str]


def ready(tmp_path: Path, config: str | None, environ: dict[str, str]) -> dict[str, str]:
    """Write the settings; return the environment."""
    if config is not None:
        (tmp_path / "monitor.toml").write_text(config)
    clean = {k: v for k, v in os.environ.items() if not k.startswith("ORDER_MONITOR_")}
    return {**clean, **environ}


def run(tmp_path: Path, *arguments: str, config: str | None = GOOD, **environ: str) -> Done:
    """Run it as a fork of a process that has read its modules."""

    async def forked(env: dict[str, str]) -> tuple[int | None, bytes, bytes]:
        process = await launch.start(*arguments, cwd=tmp_path, env=env)
        async with asyncio.timeout(60):
            out, err = await process.communicate()
        return process.returncode, out, err

    code, out, err = asyncio.run(forked(ready(tmp_path, config, environ)))
    assert code is not None
    return decent(Done(arguments, code, out.decode(), err.decode()))


def run_anew(tmp_path: Path, *arguments: str, config: str | None = GOOD) -> Done:
    """Run it as users do: Python starts, and reads what this command needs and no more."""
    command, env = [sys.executable, "-m", "order_monitor", *arguments], ready(tmp_path, config, {})
    return decent(
        subprocess.run(
            command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=60
        )
    )


def decent(done: Done) -> Done:
    for output in (done.stdout, done.stderr):
        assert "CANARY" not in output
        assert "Traceback" not in output
    return done


def test_help_and_version(tmp_path: Path) -> None:
    done = run_anew(tmp_path, "--version", config=None)
    assert (done.returncode, done.stdout.strip()) == (0, f"order-monitor, version {__version__}")
    done = run(tmp_path, "--help", config=None)
    assert done.returncode == 0
    for word in ("--once", "--json", "--every", "--config", "migrate", "check", "explain", "demo"):
        assert word in done.stdout
    for command in ("migrate", "check", "explain", "demo"):
        assert run(tmp_path, command, "--help", config=None).returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ("--nonsense",),
        ("nonsense",),
        ("--json",),
        ("--every", "60s"),
        ("--once", "--every", "soon"),
        ("--once", "--every", "0"),
        ("--once", "migrate"),
        ("migrate", "--format", "xml"),
        ("explain",),
        ("demo", "--orders", "0"),
        ("orders", "--limit", "0"),
        ("orders", "an-id"),
        ("--config", "/nowhere/monitor.toml", "--once"),
        ("migrate", "--config", "/nowhere/monitor.toml"),
    ],
)
def test_bad_usage_is_exit_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr


@pytest.mark.parametrize("arguments", [(), ("--once",), ("check",), ("explain", "x")])
def test_bad_settings_are_told_all_at_once(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """C5, E10: each mistake with its place, none with its value."""
    bad = (
        GOOD.replace("https://", "http://")
        + '[limits]\nconcurency = 5\ngate_after = "CANARY"\n[schedule]\nbase = "CANARY"\n'
    )
    done = run(tmp_path, *arguments, config=bad, ORDER_MONITOR_POLLL="CANARY")
    assert (done.returncode, done.stdout) == (2, "")
    for place in (
        "provider.base_url",
        "limits.concurency",
        "limits.gate_after",
        "schedule.base",
        "ORDER_MONITOR_POLLL",
    ):
        assert place in done.stderr
    assert "did you mean limits.concurrency?" in done.stderr


@pytest.mark.parametrize("before", [True, False])
def test_config_stands_before_or_after_the_command(tmp_path: Path, *, before: bool) -> None:
    (tmp_path / "other.toml").write_text(GOOD + "[nonsense]\n")
    option = ("--config", "other.toml")
    done = run(tmp_path, *((*option, "migrate") if before else ("migrate", *option)))
    assert done.returncode == 2
    assert "other.toml: nonsense" in done.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    "arguments",
    [
        ("--once",),
        ("--once", "--json"),
        ("migrate",),
        ("migrate", "--dry-run"),
        ("check",),
        ("orders",),
    ],
)
def test_no_database_is_exit_3(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """C1, C6: the address and its password stay where they are."""
    done = run_anew(tmp_path, *arguments)
    assert done.returncode == 3
    assert "the database cannot be reached" in done.stderr
    assert CANARY not in done.stdout + done.stderr
    if arguments != ("check",):  # It shows what it found until then.
        assert done.stdout == ""


@pytest.mark.parametrize("password", ["p@s/s?#%[x]CANARY", "CANARY:@", "%zzCANARY", "CANARY word"])
def test_a_password_that_breaks_its_dsn_is_not_repeated(tmp_path: Path, password: str) -> None:
    """C6."""
    done = run(tmp_path, "--once", config=GOOD.replace(CANARY, password))
    assert done.returncode in (2, 3)


def test_an_empty_environment_names_what_is_missing(tmp_path: Path) -> None:
    done = run(tmp_path, "--once", config=None)
    assert done.returncode == 2
    for key in ("database.dsn", "provider.base_url", "provider.kod", "provider.sifre"):
        assert key in done.stderr


def test_migrate_needs_no_account(tmp_path: Path) -> None:
    assert run(tmp_path, "migrate", config=GOOD.partition("[provider]")[0]).returncode == 3


@pytest.mark.long
@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&-", ">&- 2>&- <&-"])
def test_closed_streams_break_nothing(tmp_path: Path, closed: str) -> None:
    """D10."""
    (tmp_path / "monitor.toml").write_text(GOOD)
    command = f'exec "{sys.executable}" -m order_monitor --once --json {closed}'
    done = subprocess.run(
        ["/bin/sh", "-c", command], cwd=tmp_path, check=False, capture_output=True, timeout=60
    )
    assert done.returncode == 3
