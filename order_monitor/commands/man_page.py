"""The man page, generated from the definitions of the command line."""

from __future__ import annotations

import click

from order_monitor import __version__


def page(group: click.Group) -> str:
    """Return the manual of ``group`` and its commands, as roff for man(7)."""
    context = click.Context(group, info_name="order-monitor")
    lines = [
        f'.TH ORDER-MONITOR 1 "" "order-monitor {__version__}"',
        ".SH NAME",
        f"order\\-monitor \\- {_text(group.get_short_help_str(200))}",
        ".SH SYNOPSIS",
        "\\fBorder\\-monitor\\fR [\\fIoptions\\fR] [\\fIcommand\\fR]",
        ".SH DESCRIPTION",
        _text((group.help or "").replace("\n", " ")),
        ".SH OPTIONS",
        *_options(group, context),
        ".SH COMMANDS",
    ]
    for name, command in sorted(commands_of(group).items()):
        inner = click.Context(command, info_name=name, parent=context)
        usage = " ".join(command.collect_usage_pieces(inner))
        lines += [
            f".SS \\fB{_text(name)}\\fR {_text(usage)}",
            _text((command.help or "").replace("\n", " ")),
        ]
        lines += _options(command, inner)
    lines += [
        ".SH FILES",
        "\\fImonitor.toml\\fR, then \\fI/etc/order\\-monitor/monitor.toml\\fR: the settings.",
    ]
    return "\n".join(lines)


def commands_of(group: click.Group) -> dict[str, click.Command]:
    """Return the commands of ``group`` by what is typed; a nested command has the group's name
    first.
    """
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        inner = commands_of(command) if isinstance(command, click.Group) else {"": command}
        found |= {f"{name} {rest}".rstrip(): one for rest, one in inner.items()}
    return found


def _options(command: click.Command, context: click.Context) -> list[str]:
    lines = []
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and "--help" not in parameter.opts:
            lines += [".TP", f"\\fB{_text(record[0])}\\fR", _text(record[1])]
    return lines


def _text(text: str) -> str:
    """Escape plain text so that roff does not interpret it."""
    plain = text.replace("\\", "\\e").replace("-", "\\-").strip()
    return f"\\&{plain}" if plain.startswith((".", "'")) else plain
