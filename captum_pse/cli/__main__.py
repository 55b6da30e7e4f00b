"""Runs the command line: ``python -m captum_pse.cli``."""

import sys

from captum_pse.cli.run import main

sys.exit(main())
