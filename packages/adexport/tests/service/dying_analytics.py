"""The example's own program, killed by SIGKILL just before it commits the n-th page of what it reads.

python dying_analytics.py PAGE LOG STORE --json
"""

import os
import runpy
import signal
import sys
from pathlib import Path

from tidings import points
from tidings.consuming import following

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "export_analytics"

following.BATCH = 30  # several pages, so that one can be the third
left = int(sys.argv.pop(1))


def visit(point: str) -> None:
    """Count the pages down."""
    global left
    left -= point == "landing.before_commit"
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)


points.watch(visit)
sys.path.insert(0, str(EXAMPLE))
runpy.run_path(str(EXAMPLE / "analytics.py"), run_name="__main__")
