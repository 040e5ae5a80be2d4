"""Sphinx configuration."""

from __future__ import annotations

from importlib.metadata import version as distribution_version

project = "s2frames"
author = "the s2frames developers"
copyright = "2026, the s2frames developers"
release = version = distribution_version("s2frames")

extensions = ["sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Messages of any size over S2 streams, exactly once.",
    "page_width": "64rem",
}

# Docstrings name code in single backticks.
default_role = "py:obj"

autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_member_order = "bysource"
