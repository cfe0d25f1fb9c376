"""A pgbouncer in transaction mode in front of a test's database."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest

from order_monitor.demo.postgres import EmbeddedPostgres
from tests.support.pgbouncer import CONFIG, PGBOUNCER


@contextmanager
def pooler(server: EmbeddedPostgres, dsn: str) -> Iterator[str]:
    """Yield the same database's address through it."""
    if PGBOUNCER is None:
        pytest.skip("pgbouncer is not installed: apt-get install pgbouncer")
    url = urlsplit(dsn)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    directory = Path(tempfile.mkdtemp(prefix="pooler-"))
    (directory / "users").write_text(f'"{url.username}" "{unquote(url.password or "")}"\n')
    config = CONFIG.format(
        mode="transaction", size=4, host=server.directory, port=port, directory=directory
    )
    (directory / "ini").write_text(config)
    user = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if user is not None:
        for path in (directory, *directory.iterdir()):
            os.chown(path, user.pw_uid, user.pw_gid)
    identity = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if user else {}
    process = subprocess.Popen([PGBOUNCER, "-q", str(directory / "ini")], **identity)  # type: ignore[call-overload]
    through = f"postgresql://{url.username}:{url.password}@127.0.0.1:{port}{url.path}"
    try:
        end = time.monotonic() + 60
        while True:
            try:
                psycopg.connect(through).close()
                break
            except psycopg.OperationalError:
                assert time.monotonic() < end
                time.sleep(0.05)
        yield through
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(directory)
