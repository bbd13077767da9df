"""SIGKILL of real processes at every named point, one process and four on one file: nothing is lost or doubled.

The storm itself is in storm.py, the service under it in storm_service.py, what must be true after it in aftermath.py.
Each point is hit at least eight times in each configuration; the test fails if one was not reached.
"""

import pytest
from aftermath import Aftermath, StormSuite, rows_in, weather

HITS = 8


@pytest.fixture(scope="module", params=[("sqlite", 1), ("sqlite+apsw", 4)], ids=["1-process", "4-processes"])
def aftermath(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    scheme, processes = request.param
    folder = tmp_path_factory.mktemp("storm")
    return weather(folder, f"{scheme}:///{folder}/storm.db", processes, HITS)


@pytest.mark.timeout(400)  # the storm is in the first test of each configuration
class TestKills(StormSuite):
    def test_the_file_is_whole(self, aftermath: Aftermath) -> None:
        assert rows_in(aftermath.store, "PRAGMA integrity_check") == [[("ok",)]]
