"""A Lambda function that does nothing: what Python and AWS's runtime client cost."""

import os
import time
from pathlib import Path
from typing import Any


def handler(event: Any, context: Any) -> None:
    """Note the CPU time of the first call."""
    Path(os.environ["NOTES"]).write_text(f"{time.process_time():.3f}")
