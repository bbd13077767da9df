"""The storm over a server that crashes and restarts all the time: nothing is lost or doubled, and all drains.

By turns one of its processes is killed and all of them. Only two processes of the service, and few kills of those: what
is added to the other storms is the server's own end.
"""

from collections.abc import Iterator

import pytest
from aftermath import Aftermath, StormSuite, weather
from servers import servers

KILLS, CRASHES = 30, 6
"""So many at least."""


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("restarts")
    with servers() as new:
        server = new()
        server.make()
        yield weather(folder, server.url, 2, 1, str(server.data), kills=KILLS, cuts=CRASHES)


@pytest.mark.timeout(300)  # the storm is in the first test
class TestRestarts(StormSuite):
    acknowledged = 40  # the server is away for much of the time

    def test_it_blew_hard_enough(self, aftermath: Aftermath) -> None:
        assert aftermath.report["kills"] >= KILLS
        assert aftermath.report["cuts"] >= CRASHES
