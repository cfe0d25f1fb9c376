"""The README's commands, one after the other as they stand there, in a fresh clone on a bare
Debian, by root and by a user.
"""

import asyncio
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.comparison import assert_all_right
from tests.faults.stage import Shop
from tests.shipped.container import REPOSITORY
from tests.support import readme
from tests.support.processes import KOD, SIFRE

MACHINE = REPOSITORY / "build" / "newcomer"
THE_HOSTS_WAY = ("/etc/pip.conf", "/etc/ssl/certs")
"""How this machine reaches the package index."""
PLACES = {
    r'^# dsn = ".*"$': 'dsn = "{dsn}"',
    r'^# base_url = ".*"$': 'base_url = "{url}"\nallow_http = true',
    r'^# kod = ".*"$': f'kod = "{KOD}"',
    r'^# sifre = ".*"$': f'sifre = "{SIFRE}"',
}
"""What a person changes in the copied example: four lines, and that this panel has no certificate.
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Path]:
    root = tmp_path / "machine"
    subprocess.run(["cp", "--archive", "--reflink=auto", MACHINE, root], check=True)
    subprocess.run(
        ["git", "bundle", "create", "--quiet", root / "order-monitor.bundle", "HEAD"],
        cwd=REPOSITORY,
        check=True,
    )
    yield root
    shutil.rmtree(root)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("user", ["newcomer", "root"])
async def test_the_readme_can_be_followed_to_the_letter(
    machine: Path, bare: Shop, user: str
) -> None:
    """Install, demo, migrate, check, one pass, and the daemon, which is then stopped."""
    ids = await bare.place(20)
    install = step("pip install .")
    *_, last = run = step("order-monitor check")
    assert (step("make demo")[0], last) == ("make demo", "order-monitor")
    script = [
        "test ! -e /usr/bin/cc",
        "git clone --quiet /order-monitor.bundle order-monitor",
        "cd order-monitor",
        "make demo",
        *install,
        f"cat > monitor.toml <<'END'\n{filled_in(bare)}\nEND",
        *step("order-monitor migrate --dry-run"),
        *run[:-1],
    ]
    await typed(machine, user, script)
    await bare.settle(5)
    assert_all_right(await bare.verdict(), at_least=len(ids))

    more = await bare.place(5)
    # What it does not do by itself is stopping.
    stopped = f"timeout --preserve-status --signal=TERM 15 {last}"
    await typed(machine, user, ["cd order-monitor", install[0], stopped])
    assert_all_right(await bare.verdict(), at_least=len(ids) + len(more))


def step(holding: str) -> list[str]:
    """Return the commands of the README's block that has this one, without the remarks beside them."""
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```$", readme.README, re.MULTILINE | re.DOTALL)
    (block,) = [
        block
        for block in blocks
        if re.search(rf"^ *{re.escape(holding)}(\s|$)", block, re.MULTILINE)
    ]
    return [line.partition("#")[0].strip() for line in block.splitlines()]


def filled_in(shop: Shop) -> str:
    text = (REPOSITORY / "monitor.toml.example").read_text("utf-8")
    for line, value in PLACES.items():
        text, count = re.subn(
            line, value.format(dsn=shop.dsn, url=shop.panel.url), text, flags=re.MULTILINE
        )
        assert count == 1, line
    return text


async def typed(machine: Path, user: str, commands: list[str]) -> None:
    """Give commands to a shell in the user's home; the first that fails ends it."""
    process = await asyncio.create_subprocess_exec(
        *(
            "systemd-nspawn",
            "--register=no",
            "--keep-unit",
            "--quiet",
            "--pipe",
            f"--directory={machine}",
        ),
        *("--resolv-conf=copy-host", f"--user={user}"),
        *(f"--bind-ro={path}" for path in THE_HOSTS_WAY if Path(path).exists()),
        *("/bin/sh", "-eux"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate("\n".join(["cd", *commands, ""]).encode())
    assert process.returncode == 0, out.decode(errors="replace")[-6000:]
