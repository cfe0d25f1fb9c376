"""The examples in the README and in docs/, exactly as written, for the tests to run."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = {path.name: path.read_text("utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}


def block(language: str, holding: str) -> str:
    """Return the only fenced block of ``language`` that contains a text."""
    book = "\n".join([README, *PAGES.values()])
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", book, re.MULTILINE | re.DOTALL)
    (found,) = [text for text in blocks if holding in text]
    return str(found)
