"""
How Sphinx builds this documentation.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import twisted_cluster

project = "twisted_cluster"
author = "twisted_cluster contributors"
version = release = twisted_cluster.__version__

extensions: list[str] = []
exclude_patterns = ["_build", "_generated_*"]
nitpicky = True
nitpick_ignore_regex = [
    # Python and Twisted are not among the pages here.
    (r"py:.*", r"(?!twisted_cluster).*"),
]
highlight_language = "none"

html_theme = "alabaster"
html_theme_options = {
    "description": "The socket-passing cluster server for Twisted",
    "fixed_sidebar": True,
    "page_width": "60em",
}
html_show_sourcelink = False
