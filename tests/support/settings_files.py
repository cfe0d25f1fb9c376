"""Settings files: a small one, and the example that ships."""

import re
from pathlib import Path

from order_monitor.settings.model import Settings

CANARY = "pw-CANARY-42"
GOOD = f"""
[database]
dsn = "postgresql://u:{CANARY}@127.0.0.1:1/x"
[provider]
base_url = "https://bayi.example.com"
kod = "kod-CANARY"
sifre = "sifre-CANARY"
[health]
port = 0
"""


EXAMPLE = Path(__file__).parents[2] / "monitor.toml.example"
LINE = re.compile(r"^# ([a-z_]+) = (.+)$")


def example_lines() -> list[tuple[str, str, str, str]]:
    """Return the example's settings: section, key, value, and the line above."""
    found, section, above = [], "", ""
    for line in EXAMPLE.read_text("utf-8").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif match := LINE.match(line):
            found.append((section, match[1], match[2], above))
        above = line
    return found


def has_default(section: str, key: str) -> bool:
    default = getattr(getattr(Settings(), section), "schema_" if key == "schema" else key)
    return default is not None
