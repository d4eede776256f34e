"""Sphinx: ``sphinx-build -W docs docs/_build``."""

import os
import pathlib
import sys

ROOT = str(pathlib.Path(__file__).resolve().parents[1])
sys.path.insert(0, ROOT)
# For the notebook, which another process runs.
os.environ["PYTHONPATH"] = os.pathsep.join(
    filter(None, [ROOT, os.getenv("PYTHONPATH")])
)

import apr_jax  # noqa: E402

project = "apr_jax"
copyright = "the apr_jax authors, Apache-2.0"
version = release = apr_jax.__version__
html_title = f"apr_jax {version}"
html_theme = "furo"
extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build", "jupyter_execute"]
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3
# The notebook runs, so that what it shows is what the code does.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 120
napoleon_use_ivar = True
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True


def as_text(app, what, name, obj, options, lines):
    """Docstrings are plain text: |F| is an amplitude, and ** is for arguments."""
    lines[:] = [line.replace("|", r"\|").replace("**", r"\*\*") for line in lines]


def setup(app):
    app.connect("autodoc-process-docstring", as_text)
