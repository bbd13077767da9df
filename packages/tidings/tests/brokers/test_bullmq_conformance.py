"""The suite of a transport, over BullMQ queues on a Redis that it kills."""

from pathlib import Path

import pytest
from redis_server import RedisServer

from tidings.backends.bullmq import open_transport
from tidings.testing.conformance import TransportSuite


class TestBullMQ(TransportSuite):
    open_transport = staticmethod(open_transport)

    @pytest.fixture(autouse=True)
    def _on_redis(self, own_redis: RedisServer) -> None:
        self.redis = own_redis

    def url(self, folder: Path, sends: str, receives: str) -> str:
        return self.redis.url(queue=sends, inward=receives, lock=str(self.lease), stalled="0.3")

    async def restart(self) -> None:
        self.redis.kill()
        self.redis.start()
