"""Configuration of the documentation: `sphinx-build -W docs docs/_build`."""

import importlib.metadata

project = "sa_audit"
author = "The sa_audit authors"
release = importlib.metadata.version("sa-audit")
version = release

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]

myst_enable_extensions = ["colon_fence", "deflist", "attrs_block"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = f"sa_audit {release}"
