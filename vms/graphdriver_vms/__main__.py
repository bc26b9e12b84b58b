"""`python -m graphdriver_vms`: what `graphdriver matrix` runs."""

import sys

from graphdriver_vms.cli import main

sys.exit(main())
