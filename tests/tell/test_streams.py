"""What is printed reaches its reader whatever the stream is, or is lost without a traceback: by
real processes.
"""

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from order_monitor.tell.screen import Screen, styled
from order_monitor.tell.streams import Outlet, outlet, say, settle, show
from tests.support.processes import settings
from tests.support.settings_files import GOOD
from tests.support.shops import Shop

ROOT = Path(__file__).parents[2]
ODD = "ş ✓ \N{PILE OF POO} \x9b\x1b"


def shell(
    tmp_path: Path, command: str, config: str = GOOD, **environ: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a line of shell, in which ``om`` is the program; its last exit code is that of ``om``."""
    (tmp_path / "monitor.toml").write_text(config)
    known = {
        k: v for k, v in os.environ.items() if not k.startswith(("ORDER_MONITOR_", "COVERAGE"))
    }
    told = f'om() {{ "{sys.executable}" -m order_monitor "$@"; }}\n{command}'
    env = {**known, "PYTHONPATH": str(ROOT), **environ}
    done = subprocess.run(
        ["/bin/bash", "-c", told],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done


@pytest.mark.long
@pytest.mark.parametrize(
    "command", ["man", "--help", "--version", "completion bash", "migrate --help"]
)
def test_a_full_disk_is_told_and_is_exit_1(tmp_path: Path, command: str) -> None:
    done = shell(tmp_path, f"om {command} >/dev/full")
    assert done.returncode == 1
    assert done.stderr == b"order-monitor: standard output takes nothing: No space left on device\n"
    assert shell(tmp_path, f"om {command} >/dev/full 2>&1").returncode == 1, (
        "and where nobody can be told"
    )


@pytest.mark.long
def test_an_error_that_cannot_be_told_keeps_its_exit_code(tmp_path: Path) -> None:
    for command, code in (("nonsense", 2), ("--once", 3), ("orders", 3), ("migrate --nonsense", 2)):
        assert shell(tmp_path, f"om {command} 2>/dev/full").returncode == code
        assert shell(tmp_path, f"om {command} 2>/dev/full >&2").returncode == code
        assert shell(tmp_path, f"om {command} 2>&- >&-").returncode == code


@pytest.mark.long
@pytest.mark.parametrize("command", ["man", "--help", "completion zsh"])
def test_a_reader_who_leaves_ends_it_quietly(tmp_path: Path, command: str) -> None:
    done = shell(tmp_path, f"om {command} | true; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, b"")
    done = shell(tmp_path, f"om {command} | head -1; exit ${{PIPESTATUS[0]}}")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.count(b"\n") == 1


def test_a_stream_that_is_for_reading_only_takes_nothing(tmp_path: Path) -> None:
    done = shell(tmp_path, "om man 1</dev/null")
    assert (done.returncode, done.stderr) == (
        1,
        b"order-monitor: standard output takes nothing: Bad file descriptor\n",
    )


@pytest.mark.long
@pytest.mark.parametrize("form", ["", "--json", "--csv"])
async def test_orders_whatever_becomes_of_them(plain_shop: Shop, tmp_path: Path, form: str) -> None:
    for n in range(300):
        await plain_shop.add(sent_at=1_700_000_000.0 + n, reference=ODD)
    config = settings(plain_shop.dsn, "http://127.0.0.1:1")
    done = shell(tmp_path, f"om orders {form} >/dev/full", config)
    assert (done.returncode, done.stderr.count(b"\n")) == (1, 1)
    assert b"No space left on device" in done.stderr
    done = shell(tmp_path, f"om orders {form} | head -c 10; exit ${{PIPESTATUS[0]}}", config)
    assert (done.returncode, done.stderr, len(done.stdout)) == (0, b"", 10)


@pytest.mark.long
@pytest.mark.parametrize(
    "encoding", ["ascii", "latin-1", "iso8859-9", "cp857", "utf-8", "utf-16-le"]
)
async def test_each_encoding_gets_what_it_has(
    plain_shop: Shop, tmp_path: Path, encoding: str
) -> None:
    await plain_shop.add(reference=ODD)
    config = settings(plain_shop.dsn, "http://127.0.0.1:1")
    for command in ("orders", "orders --csv"):
        done = shell(tmp_path, f"om {command}", config, PYTHONIOENCODING=encoding)
        text = done.stdout.decode(encoding)
        assert (done.returncode, done.stderr) == (0, b"")
        assert ("ş" in text) is (encoding not in ("ascii", "latin-1"))
        assert ("✓" in text) is encoding.startswith("utf")
        assert r"\u009b\u001b" in text
    done = shell(tmp_path, "om orders --json", config, PYTHONIOENCODING=encoding)
    assert json.loads(done.stdout.decode(encoding))[0]["referans"] == ODD
    for command in ("--help", "man", "nonsense ş ✓"):
        assert shell(tmp_path, f"om {command}", config, PYTHONIOENCODING=encoding).returncode in (
            0,
            2,
        )


def caught(monkeypatch: pytest.MonkeyPatch) -> tuple[io.BytesIO, io.BytesIO]:
    """Return what will be printed from now on.

    No fixture, since pytest puts its own streams back before a test begins.
    """
    out, err = io.BytesIO(), io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, "utf-8"))
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(err, "utf-8"))
    return out, err


def test_one_line_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = caught(monkeypatch)
    show("a\nb", "c\td")
    say("e\x1b")
    assert streams[0].getvalue() == b"a\\nb\nc\\td\n"
    assert streams[1].getvalue() == b"e\\u001b\n"


def test_whoever_prints_past_it_prints_harmlessly(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = caught(monkeypatch)
    kept = outlet(sys.stdout)
    assert outlet(kept) is kept
    print("a\x1b[31m\tb", file=kept, flush=True)
    assert streams[0].getvalue() == b"a\\u001b[31m\tb\n"
    assert kept.writable()
    given: Any = b"bytes"
    with pytest.raises(TypeError, match="bytes"):
        kept.write(given)


def test_rich_keeps_its_own_styles_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = caught(monkeypatch)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    screen = Screen(elsewhere=100)
    screen.print(styled(("a\x1b[32mb\n", "red"), "[bold]\u202e"))
    screen.print("c\x1b[32m\x9b[link=http://x]", style="red")
    assert not screen.is_seen
    assert not screen.is_lost
    assert streams[0].getvalue() == (
        b"\x1b[31ma\\u001b[32mb\\n\x1b[0m[bold]\\u202e\n\x1b[31mc\\u001b[32m\\u009b[link=http://x]\x1b[0m\n"
    )


def test_what_was_lost_is_remembered_and_nothing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w", encoding="utf-8") as broken:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdout", Outlet(broken))
        show("a")
        show("b")
        screen = Screen()
        assert screen.is_lost
        screen.print("c")
        assert settle(0) == 0
        assert settle(3) == 3


def test_a_library_may_use_it_as_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    caught(monkeypatch)
    kept = Outlet(sys.stdout)
    assert (kept.encoding, kept.isatty(), kept.styled.styled) == ("utf-8", False, kept.styled)
    with pytest.raises(io.UnsupportedOperation):
        kept.fileno()
    assert not hasattr(kept, "buffer"), "or it would be gone around"
