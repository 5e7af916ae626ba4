"""Sphinx configuration."""

import sys
from pathlib import Path

project = "lbarray"
author = "the lbarray authors"
sys.path.insert(0, str(Path(__file__).resolve().parent))
extensions = ["sphinx.ext.autodoc", "keys"]
exclude_patterns = ["_build"]
html_theme = "alabaster"
html_theme_options = {"description": "A decrypting load balancing array", "page_width": "1000px"}
autodoc_member_order = "bysource"
