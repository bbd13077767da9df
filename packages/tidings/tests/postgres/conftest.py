"""The storm of the fault tests blows here, too; and tests may have servers of their own."""

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "faults")]
pytest.register_assert_rewrite("aftermath")
