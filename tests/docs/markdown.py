"""Reads Markdown pages: their links, their headings' anchors, and the commands that they show."""

from __future__ import annotations

import functools
import pathlib
import re
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.tiny import ROOT

PARSER = MarkdownIt("commonmark").enable("table")
OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md", "README.md", ".github/**/*.md", "benchmarks/**/*.md", "examples/**/*.md")


def pages() -> list[pathlib.Path]:
    """Every page of the repository, by its path."""
    return sorted(page for pattern in ("docs/**/*.md", *OTHERS) for page in ROOT.glob(pattern))


def tokens(text: str) -> Iterator[Token]:
    """All tokens of a page, those within lines of text too."""
    for token in PARSER.parse(text):
        yield token
        yield from token.children or ()


def links(text: str) -> Iterator[str]:
    """The targets of links and images, those of HTML elements too, but not those within code."""
    for token in tokens(text):
        for name in ("href", "src"):
            if token.type in ("link_open", "image") and name in token.attrs:
                yield str(token.attrs[name])
        if token.type in ("html_inline", "html_block"):
            yield from re.findall(r'\b(?:href|src|srcset)="([^"]+)"', uncommented(token.content))


@functools.cache
def anchors(text: str) -> set[str]:
    """The anchors that repository hosts and the site give the headings."""
    found: Counter[str] = Counter()
    names = set()
    parsed = PARSER.parse(text)
    for opened, token in zip(parsed, parsed[1:], strict=False):
        if opened.type == "heading_open":
            words = "".join(child.content for child in token.children or () if child.type in ("text", "code_inline"))
            name = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
            names.add(f"{name}-{found[name]}" if found[name] else name)
            found[name] += 1
    html = (uncommented(token.content) for token in tokens(text) if token.type in ("html_inline", "html_block"))
    return names | {name for part in html for name in re.findall(r'\b(?:id|name)="([^"]+)"', part)}


def uncommented(html: str) -> str:
    return re.sub(r"<!--.*?-->", "", html, flags=re.DOTALL)


def broken_links(page: pathlib.Path) -> list[str]:
    """The links of a page to files or headings that do not exist."""
    text = page.read_text()
    broken = []
    for link in links(text):
        path, _, anchor = link.partition("#")
        if re.match(r"\w+:", path):
            continue
        target = page.parent / unquote(path) if path else page
        known = anchors(target.read_text()) if target.suffix == ".md" and target.is_file() else {anchor}
        if not target.exists() or (anchor and anchor not in known):
            broken.append(link)
    return broken


def code(text: str) -> Iterator[tuple[str, bool]]:
    """Lines of code blocks, with True, and code spans, with False. A line that ends in a backslash goes on."""
    for token in tokens(text):
        if token.type in ("fence", "code_block"):
            yield from ((line, True) for line in re.sub(r"\\\n\s*", " ", token.content).splitlines())
        elif token.type == "code_inline":
            yield token.content, False
