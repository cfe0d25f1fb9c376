"""Runs the built image like a container engine, with systemd-nspawn: with its user, variables and
entry point.
"""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

REPOSITORY = Path(__file__).parents[2]
BUILDAH = REPOSITORY / ".ci" / "buildah"
MODEST = ("--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all")
"""The options of deploy/compose.yaml: cap_drop and no-new-privileges."""


def buildah(*arguments: str) -> str:
    return subprocess.run(
        [BUILDAH, *arguments], capture_output=True, text=True, check=True
    ).stdout.strip()


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@dataclass(frozen=True)
class Image:
    """An image in build/containers."""

    name: str = "localhost/order-monitor"

    @cached_property
    def config(self) -> dict[str, Any]:
        """Return what the Dockerfile sets in addition to files, in Docker's terms."""
        found: dict[str, Any] = json.loads(buildah("inspect", "--type", "image", self.name))[
            "Docker"
        ]["config"]
        return found

    @property
    def base(self) -> Self:
        text = (REPOSITORY / "Dockerfile").read_text()
        return type(self)("docker.io/library/" + text.rpartition("\nFROM ")[2].partition("\n")[0])

    @contextmanager
    def mounted(self) -> Iterator["Root"]:
        container = buildah("from", "--pull-never", self.name)
        try:
            yield Root(self, Path(buildah("mount", container)))
        finally:
            buildah("rm", container)


@dataclass(frozen=True)
class Root:
    """An image's file system, and how a process is started in it."""

    image: Image
    path: Path

    def command(
        self, *arguments: str, settings: Path, secrets: Path, environ: dict[str, str]
    ) -> list[str]:
        """Return the command that runs the entry point with ``arguments``, as process 1, on a
        read-only root.

        It forwards SIGTERM, and has the program's exit code.
        """
        return [
            *(
                "systemd-nspawn",
                "--register=no",
                "--keep-unit",
                "--quiet",
                "--pipe",
                "--kill-signal=SIGTERM",
            ),
            *(f"--directory={self.path}", "--read-only", "--tmpfs=/tmp:mode=1777"),
            *(
                f"--bind-ro={settings}:{self.image.config['WorkingDir']}",
                f"--bind-ro={secrets}:/run/secrets",
            ),
            *self.as_its_user(environ),
            *self.image.config["Entrypoint"],
            *arguments,
        ]

    def inside(self, pid: int, *command: str, environ: dict[str, str]) -> list[str]:
        """Return the command that runs ``command`` next to the process that the systemd-nspawn
        ``pid`` has started.
        """
        (first,) = children(pid)
        folder = f"--wd=/proc/{first}/cwd"
        return [
            "nsenter",
            f"--target={first}",
            "--all",
            folder,
            *self.as_its_user(environ),
            *command,
        ]

    def as_its_user(self, environ: dict[str, str]) -> list[str]:
        config = self.image.config
        users = [
            line.split(":") for line in (self.path / "etc" / "passwd").read_text().splitlines()
        ]
        (group,) = (fields[3] for fields in users if fields[2] == config["User"])
        variables = [*config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        return [
            *("setpriv", f"--reuid={config['User']}", f"--regid={group}", *MODEST),
            *("env", "--ignore-environment", f"--chdir={config['WorkingDir']}", *variables),
        ]
