"""Let the site have what the book links to outside its folder: the runbooks, the files to deploy,
the example of the settings.

The links are written as they work in the repository; here each is turned into the one that works on
the site.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any, Final

from properdocs.structure.files import File, InclusionLevel

ROOT: Final = Path(__file__).parent.parent
_LINK: Final = re.compile(r"(?<=\]\()(?!\w+:|#)([^)#\s]+)")
_CODE: Final = re.compile(r"`[^`\n]+`")


def on_config(config: Any) -> Any:
    """Make the anchors that the repository's own view of a page has, in Arabic too."""
    config.mdx_configs["toc"]["slugify"] = slug
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add every file outside docs/ that a page links to, and what those link to."""
    waiting = [f"docs/{file.src_uri}" for file in files.documentation_pages()]
    while waiting:
        page = waiting.pop()
        for link in _LINK.findall((ROOT / page).read_text("utf-8")):
            path = _resolved(page, link)
            if (
                (ROOT / path).is_file()
                and not path.startswith("docs/")
                and not files.get_file_from_path(path)
            ):
                place = str(ROOT / path)
                files.append(
                    File.generated(
                        config, path, abs_src_path=place, inclusion=InclusionLevel.NOT_IN_NAV
                    )
                )
                waiting += [path] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:  # noqa: ARG001 - the builder's signature
    """Turn the links, and let Markdown be read inside the frame that turns a page from right to
    left.
    """
    here = page.file.src_uri
    source = f"docs/{here}" if (ROOT / "docs" / here).is_file() else here

    def turned(link: re.Match[str]) -> str:
        return posixpath.relpath(
            _resolved(source, link[1]).removeprefix("docs/"), posixpath.dirname(here) or "."
        )

    # In a table the repository's view wants a bar in code escaped, and the builder does not.
    unescaped = _CODE.sub(lambda code: code[0].replace(r"\|", "|"), markdown)
    return _LINK.sub(turned, unescaped).replace('<div dir="', '<div markdown="1" dir="')


def slug(title: str, separator: str) -> str:
    """Return a heading's anchor."""
    return re.sub(r"[^\w\- ]", "", title.strip().lower()).replace(" ", separator)


def _resolved(page: str, link: str) -> str:
    """Return the path, from the repository's root, of what a page links to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))
