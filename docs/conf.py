"""How the documentation is built.

``sphinx-build -W -n --keep-going docs docs/_build/html`` (extra ``docs``). Nothing is
fetched. The notebooks of ``tutorials/`` are shown with the outputs that are stored in
them, and not run; Sphinx reads only below ``docs/``, so each build copies them to
``docs/tutorials/``, which git ignores.
"""

import shutil
import sys
from pathlib import Path

import captum_pse

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_extensions"))

notebooks = HERE / "tutorials"
shutil.rmtree(notebooks, ignore_errors=True)
notebooks.mkdir()
for notebook in (HERE.parent / "tutorials").glob("*.ipynb"):
    shutil.copy2(notebook, notebooks)

project = "captum-pse"
copyright = "the authors of captum-pse"
version = release = captum_pse.__version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "cli_help",
    "returned",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"captum-pse {release}"

nb_execution_mode = "off"
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

# Types stand in the docstrings, with what they are for; signatures show names and
# defaults. ``returned`` adds what a method without a Returns section returns.
autodoc_typehints = "none"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    # Of Captum's base classes; there is nothing behind them here.
    "exclude-members": "attribute_future, compute_convergence_delta, "
    "has_convergence_delta",
}
# What other packages say of a method that ours has without a word is not ours to check.
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
# One line may describe several attributes, as it may several arguments.
napoleon_custom_sections = [("Attributes", "params_style")]

# Types of other packages, and words of docstrings that are no names of classes. All
# names of this package are checked.
nitpick_ignore_regex = [
    ("py:.*", r"(captum|torch|numpy|np|nn|matplotlib|typing|collections|abc)\..*"),
    (
        "py:class",
        "Any|Array|Attribution|Callable|Dataset|Figure|Iterator|Label|Mapping|Path"
        "|Sequence|Tensor|a sequence|iterable|mapping|optional|scalar|sequence|them",
    ),
]
