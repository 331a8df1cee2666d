"""`python -m enpar` is the same as `enpar`."""

import sys

from enpar.cli import main

sys.exit(main())
