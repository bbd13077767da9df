"""The storm of the fault tests blows here, too."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))
pytest.register_assert_rewrite("aftermath")
