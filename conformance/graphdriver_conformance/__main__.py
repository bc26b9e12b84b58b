"""`python -m graphdriver_conformance` is the command `graphdriver`."""

import sys

from graphdriver_conformance.cli import main

sys.exit(main())
