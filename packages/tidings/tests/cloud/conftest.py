"""Fixtures of the cloud tests: this folder's modules, and queues made by `tidings topology`'s own code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
