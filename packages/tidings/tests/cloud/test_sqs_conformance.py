"""The suite of a transport, over SQS queues, FIFO queues, and SNS topics with queues behind them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from cloud_servers import AwsServer
from queues import client, made

from tidings.backends.sqs import open_transport
from tidings.testing.conformance import TransportSuite


class OnQueues(TransportSuite):
    """Every queue that a URL names is made first."""

    __test__ = False
    open_transport = staticmethod(open_transport)
    kind: ClassVar[str] = ""
    quiet = 0.2

    @pytest.fixture(autouse=True)
    def _on_aws(self, request: pytest.FixtureRequest, aws_credentials: None) -> Iterator[None]:
        self._there: set[str] = set()
        self.server: AwsServer | None = None
        if request.node.originalname == "test_a_broker_that_starts_again_has_what_it_had":
            self.server = AwsServer(request.getfixturevalue("tmp_path"), keeps_state=True).start()
        self.endpoint = self.server.url if self.server else request.getfixturevalue("aws_endpoint")
        yield
        if self.server:
            self.server.kill()

    def url(self, folder: Path, sends: str, receives: str) -> str:
        self._make(sends, receives)
        return f"sqs://{sends}{self.kind}?in={receives}{self.kind}&{self._options()}"

    def fan_out_url(self, folder: Path, sends: Sequence[str], receives: str) -> str:
        self._make(*sends, receives)
        return f"sqs://{','.join(name + self.kind for name in sends)}?in={receives}{self.kind}&{self._options()}"

    def dead_url(self, folder: Path, sends: str, dead: str) -> str:
        url = f"sqs://{sends}{self.kind}?in={sends}{self.kind}&dead={dead}{self.kind}&receives=2&{self._options()}"
        made(url)
        return url

    async def restart(self) -> None:
        """AWS has no restart that loses anything: the stand-in writes down what it has, and is away for a while."""
        assert self.server is not None
        self.server.stop()
        self.server.start()

    def _options(self) -> str:
        return f"lease={int(self.lease)}&endpoint={self.endpoint}"

    def _make(self, *names: str) -> None:
        for name in {*names} - self._there:
            self._there.add(name)
            attributes = {"FifoQueue": "true"} if self.kind else {}
            client("sqs", self.endpoint).create_queue(QueueName=name + self.kind, Attributes=attributes)


class TestSQS(OnQueues):
    __test__ = True


class TestSQSFIFO(OnQueues):
    __test__ = True
    kind = ".fifo"


class TestSNS(OnQueues):
    """Topics of the queues' names, each with its queue subscribed."""

    __test__ = True

    def url(self, folder: Path, sends: str, receives: str) -> str:
        return self.fan_out_url(folder, [sends], receives)

    def fan_out_url(self, folder: Path, sends: Sequence[str], receives: str) -> str:
        topic = "-and-".join(sends)[:80]
        if f"topic {topic}" not in self._there:
            self._there.add(f"topic {topic}")
            made(f"sns://{topic}?in={','.join(sends)}&{self._options()}")
        self._there.update(sends)
        self._make(receives)
        return f"sns://{topic}?in={receives}&{self._options()}"
