"""The book: every setting, command, option, metric and alert stands in it, and every link leads
somewhere.
"""

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from order_monitor.commands.cli import cli_group
from order_monitor.commands.man_page import commands_of
from order_monitor.settings.model import Settings
from tests.support import readme
from tests.support.alerts import ALERTS, on_fire
from tests.support.readme import PAGES, ROOT
from tests.support.settings_files import example_lines, has_default
from tests.support.stages import shared

pytestmark = pytest.mark.outside

ARABIC = (ROOT / "docs" / "ar" / "operating.md").read_text("utf-8")
COMMANDS: dict[str, click.Command] = {
    "order-monitor": cli_group,
    **{f"order-monitor {name}": command for name, command in commands_of(cli_group).items()},
}
OPTION = r"(?<![\w-])--?[A-Za-z][a-z-]*"
LINKED = [ROOT / "README.md", ROOT / "README.ar.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINKED += sorted((ROOT / "deploy").glob("*.md"))
LINKED += [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


# --- settings


@pytest.fixture(scope="module")
def generator() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "docs" / "settings_page.py"))


def test_the_settings_page_is_what_the_settings_say(generator: dict[str, Any]) -> None:
    assert generator["page"]() == PAGES["settings.md"], "stale: make docs-settings"


def test_each_setting_is_explained_as_in_the_example(generator: dict[str, Any]) -> None:
    sections: dict[str, Any] = {
        name: field.annotation for name, field in Settings.model_fields.items()
    }
    for section, key, _, above in example_lines():
        fields = sections[section].model_fields
        name = next(name for name, field in fields.items() if key in (name, field.alias))
        said = generator["meanings"](sections[section])[name].replace("`", "")
        if not has_default(section, key):
            said = re.sub(r"\.(?= |$)", "; no default.", said, count=1)
        assert above == f"# {said}", f"{section}.{key}"


# --- commands


def part(name: str) -> str:
    """Return what the commands' page says under one command's heading."""
    (_, text) = PAGES["commands.md"].split(f"\n### {name}\n")
    return re.split(r"^#", text, maxsplit=1, flags=re.MULTILINE)[0]


def own_options(command: click.Command) -> set[str]:
    """Return a command's options, save ``--config`` and ``--help``, which all of them have."""
    found = {
        o
        for p in command.params
        if isinstance(p, click.Option)
        for o in (*p.opts, *p.secondary_opts)
    }
    return found - {"--config"} if command is not cli_group else found


@pytest.mark.parametrize("name", COMMANDS)
def test_each_option_of_a_command_is_listed_under_it_and_no_other(name: str) -> None:
    listed = "".join(
        line.partition(":")[0] for line in part(name).splitlines() if line.startswith("- ")
    )
    assert set(re.findall(OPTION, listed)) == own_options(COMMANDS[name])
    assert set(re.findall(OPTION, part(name))) <= own_options(COMMANDS[name])


def test_the_table_of_commands_has_each_once() -> None:
    calls = re.findall(
        r"^\| \[`(order-monitor[^`]*)`\]\(#([a-z-]+)\) \|", PAGES["commands.md"], re.MULTILINE
    )
    assert sorted(re.sub(r" [A-Z]+…?$", "", call) for call, _ in calls) == sorted(COMMANDS)
    for call, _ in calls:
        assert f"| `{call}` |" in ARABIC, call


# --- metrics and alerts


async def test_each_metric_is_in_its_table_and_no_other() -> None:
    exposed = {
        family.name + "_total" * (family.type == "counter")
        for stage in (await on_fire(), await shared())
        for family in text_string_to_metric_families(stage.metrics.text().decode())
        if not family.name.endswith("_created")
    }
    listed = re.findall(
        r"^\| `(order_monitor_\w+)(?:\{[a-z,]+\})?` \|", PAGES["metrics.md"], re.MULTILINE
    )
    assert set(exposed) - set(listed) == set(), "no row in docs/metrics.md"
    assert set(listed) - set(exposed) == set(), "a row in docs/metrics.md, and no such metric"
    assert len(listed) == len(set(listed))
    assert len(exposed) > 20


def test_each_alert_is_in_its_table_and_no_other() -> None:
    rows = re.findall(
        r"^\| \[`(\w+)`\]\(\S+#(\w+)\) \((\w+)\) \|", PAGES["metrics.md"], re.MULTILINE
    )
    assert rows == [
        (name, name.lower(), rule["labels"]["severity"]) for name, rule in ALERTS.items()
    ]


# --- the book as a whole


@pytest.mark.parametrize("name", ["README.md", "README.ar.md"])
def test_a_readme_is_read_in_one_sitting(name: str) -> None:
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= 150


def test_both_readmes_have_the_same_examples() -> None:
    """Word for word, save the remarks beside the commands."""

    def examples(text: str) -> list[str]:
        found = re.findall(r"^ *```(?:sh|toml)\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
        return [re.sub(r"\s*#.*|^ +", "", block, flags=re.MULTILINE) for block in found]

    arabic = examples((ROOT / "README.ar.md").read_text("utf-8"))
    assert len(arabic) == 5
    assert arabic == examples(readme.README)[: len(arabic)]


def test_every_page_is_in_the_sites_contents() -> None:
    nav = yaml.safe_load((ROOT / "properdocs.yml").read_text("utf-8"))["nav"]

    def pages(entries: list[dict[str, Any]]) -> Iterator[str]:
        for entry in entries:
            for value in entry.values():
                yield from [value] if isinstance(value, str) else pages(value)

    book = {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}
    assert set(pages(nav)) == book | {
        str(path.relative_to(ROOT)) for path in (ROOT / "deploy").glob("*.md")
    }


# --- links, without the network


def without_code(text: str) -> str:
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"``.*?``|`[^`\n]*`", lambda code: "x" * len(code[0]), text)


def anchors(path: Path) -> set[str]:
    """Return the anchors of a page's headings, as a browser of repositories makes them."""
    found: list[str] = []
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for title in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        slug = re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", "-")
        found.append(
            slug if slug not in found else f"{slug}-{sum(f.startswith(slug) for f in found)}"
        )
    return set(found)


def links(path: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", without_code(path.read_text("utf-8")))


@pytest.mark.parametrize("path", LINKED, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for link in links(path):
        if re.match(r"[a-z]+:", link):
            assert link.startswith("https://"), link
            continue
        name, _, anchor = unquote(link).partition("#")
        target = (path.parent / name).resolve() if name else path
        assert target.is_relative_to(ROOT), f"{link}: leads out of the repository"
        assert target.is_file(), f"{link}: there is no such file"
        if anchor:
            assert anchor in anchors(target), f"{link}: there is no such heading"


def test_the_links_are_found() -> None:
    assert sum(len(links(path)) for path in LINKED) > 80
    assert "keep-the-reference" in anchors(ROOT / "docs" / "shop.md")


def test_where_messages_point_to_the_book_there_is_a_page() -> None:
    """What the program tells people to read is there."""
    for path in (ROOT / "order_monitor").rglob("*.py"):
        for named in re.findall(r"\bdocs/[\w./-]+\.md", path.read_text("utf-8")):
            assert (ROOT / named).is_file(), (path, named)


def test_the_files_that_the_architecture_names_are_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_/]+\.py)`", text)) - {
        *("client.py", "parser.py", "settings.py", "kind.py"),
    }
    assert len(named) > 30
    places = (
        ROOT,
        ROOT / "order_monitor",
        ROOT / "order_monitor" / "watch",
        ROOT / "order_monitor" / "commands",
    )
    assert [name for name in named if not any((place / name).is_file() for place in places)] == []


def test_every_part_is_in_the_architecture() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    parts = {f"{path.parent.name}/" for path in (ROOT / "order_monitor").glob("*/__init__.py")}
    parts |= {path.name for path in (ROOT / "order_monitor").glob("*.py")}
    assert (
        sorted(
            part for part in parts - {"__init__.py", "__main__.py"} if f"| `{part}` |" not in text
        )
        == []
    )
