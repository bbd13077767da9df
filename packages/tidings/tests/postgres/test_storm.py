"""SIGKILL of processes and cuts of connections during load on Postgres: nothing is lost or doubled, order is kept.

The storm of the fault tests, over one process and over four: at every named point, and at power cuts, which kill all at
once and then again and again while they start. Meanwhile connections are ended by pg_terminate_backend, one or all of
them, and once the database lets nobody in for two seconds, as a restarting server does.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest
from aftermath import Aftermath, StormSuite, weather


class Size(NamedTuple):
    """Of one storm: its processes; and at least so many hits of each point, SIGKILLs, and connections that are cut."""

    processes: int
    hits: int
    kills: int
    cuts: int


SIZES = (Size(1, 2, 55, 20), Size(4, 2, 180, 100))
"""Together more than 200 SIGKILLs, and more than 50 cuts."""


@pytest.fixture(scope="module", params=SIZES, ids=["1-process", "4-processes"])
def aftermath(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    postgres_server: str,
    new_database: Callable[[], AbstractContextManager[str]],
) -> Iterator[Aftermath]:
    size: Size = request.param
    with new_database() as url:
        folder = tmp_path_factory.mktemp("storm")
        left = weather(folder, url, size.processes, size.hits, postgres_server, kills=size.kills, cuts=size.cuts)
        left.report["size"] = size
        yield left


@pytest.mark.timeout(400)  # the storm is in the first test of each configuration
class TestStorm(StormSuite):
    def test_it_blew_hard_enough(self, aftermath: Aftermath) -> None:
        size: Size = aftermath.report["size"]
        assert aftermath.report["kills"] >= size.kills
        assert aftermath.report["cuts"] >= size.cuts
