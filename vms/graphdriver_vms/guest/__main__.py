"""`python3 -m graphdriver_vms.guest PLAN.json RESULTS`: run a plan, report the progress."""

import json
import sys
from pathlib import Path

from graphdriver_vms.guest.agent import run_plan

run_plan(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
