"""Settings of the documentation site: ``make docs`` builds it into build/site, without a network."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

from reference_pages import write_reference_pages  # noqa: E402

from retrieval import __version__  # noqa: E402

project = "two-stage-retrieval"
author = "the authors of two-stage-retrieval"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
# The root of the source is that of the repository, so that links between docs/, benchmarks/ and examples/ hold in both.
root_doc = "docs/index"
include_patterns = [
    "docs/**.md",
    "benchmarks/*.md",
    "examples/*/README.md",
    "retrieval/models/*/README.md",
    "retrieval/evaluation/data/README.md",
]
exclude_patterns = [".venv", ".git", "build", "dist", "**/.*", "**/__pycache__", "tests"]
html_extra_path = ["start"]

html_theme = "furo"
html_title = "two-stage-retrieval"
html_copy_source = False
html_show_sphinx = False
# The theme's own fonts are those of the system: no page asks another host for anything.
html_theme_options = {"navigation_with_keys": True}

myst_heading_anchors = 3
myst_enable_extensions = ["deflist", "colon_fence"]

autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autoclass_content = "class"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
# Docstrings mark names with single backticks; they are shown as code.
default_role = "code"

write_reference_pages(Path(__file__).parent / "reference")
