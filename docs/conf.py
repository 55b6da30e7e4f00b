"""How the documentation is built.

``sphinx-build -W -n --keep-going docs docs/_build/html`` (extra ``docs``). The build
downloads nothing and does not run the notebooks of ``tutorials/``: their pages show the
stored outputs. Sphinx reads only below ``docs/``, so each build copies them to
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

# Docstrings state the types of arguments, so signatures show names and defaults only.
# The extension ``returned`` adds the return type of methods without a Returns section.
autodoc_typehints = "none"
autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    # Methods of Captum's base classes that these classes do not implement.
    "exclude-members": "attribute_future, compute_convergence_delta, "
    "has_convergence_delta",
}
# Docstrings inherited from other packages are not checked here.
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
# One line of ``Attributes`` may describe several, as in ``Args``.
napoleon_custom_sections = [("Attributes", "params_style")]

# Types of other packages, and words of docstrings that are not class names. All names
# of this package are checked.
nitpick_ignore_regex = [
    ("py:.*", r"(captum|torch|numpy|np|nn|matplotlib|typing|collections|abc)\..*"),
    # Type variables of generic classes.
    ("py:obj", r"captum_pse\..*\.(Decompositions|Maps|Results|Sensitivities|Values)"),
    (
        "py:class",
        "Any|Array|Attribution|Callable|Dataset|Figure|Iterator|Label|Mapping|Path"
        "|Sequence|Tensor|a sequence|iterable|mapping|optional|scalar|sequence|them",
    ),
]
