import sys

from captum_pse.cli import main

sys.exit(main())
