"""Settings of the documentation, which ``make docs`` builds; nothing is fetched while it builds or is read."""

from __future__ import annotations

import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
# The reference is written from this checkout's code, whatever is installed.
sys.path[:0] = [str(CHECKOUT), str(Path(__file__).resolve().parent / "extensions")]

from rmldnn_contract import __version__

project = "rml-optimization"
version = release = __version__
language = "en"
extensions = ["from_the_code", "sphinx.ext.autodoc"]
exclude_patterns = ["extensions"]
smartquotes = False
nitpicky = True

html_theme = "furo"
html_title = "rml-optimization"
html_static_path = ["static"]
html_css_files = ["page.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"
