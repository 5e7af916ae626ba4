"""Sphinx configuration."""

project = "lbarray"
author = "the lbarray authors"
extensions = ["sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A decrypting load balancing array", "page_width": "1000px"}
autodoc_member_order = "bysource"
