"""Builds these pages as a site: python -m sphinx -W -b html docs OUT, with sphinx, myst-parser and furo installed."""

import re

project = "scarce_jax"
html_title = project
extensions = ["myst_parser"]
html_theme = "furo"

# Links to headings are written as repository hosts name them, so that they work there too.
myst_heading_anchors = 4

# A flag is --flag, and not a dash.
smartquotes = False

# The pages are plain Markdown, and their sources are in the repository.
html_copy_source = False
html_show_copyright = False

# A block without a language is a command or what it prints.
highlight_language = "none"


def without_links_to_the_repository(app, docname, source):
    """Links to files above this folder work in the repository alone; the site has their text."""
    up = re.escape("../" * (docname.count("/") + 1))
    source[0] = re.sub(rf"\[([^\]]+)\]\({up}[^)]*\)", r"\1", source[0])


def setup(app):
    app.connect("source-read", without_links_to_the_repository)
