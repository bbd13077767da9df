"""SQS away, gone, denied, throttling: nothing is lost, and what is said names the cause."""

import asyncio
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from random import Random

import botocore.session
import pytest
from aiohttp import web
from cloud_servers import AwsServer, free_port
from queues import client, made
from waiting import until

from tidings import Event, Service
from tidings.backends.sqs import SQSTransport, open_transport
from tidings.errors import ServiceError, TransportError
from tidings.events import envelope_from_json
from tidings.service import system_clock, uuid7_ids
from tidings.testing.conformance.samples import envelope
from tidings.world import World

PROXY = Path(__file__).parents[1] / "postgres" / "proxy.py"
WORLD = World(system_clock, Random(), uuid7_ids)
ALLOWED = """{"Version": "2012-10-17", "Statement": [
  {"Effect": "Allow", "Action": ["sqs:GetQueueUrl", "sqs:ReceiveMessage"], "Resource": "*"}]}"""


class Said(Event, name="faults.said"):
    text: str


class Proxy:
    """A network between us and SQS that can be cut."""

    def __init__(self, port_of_server: int) -> None:
        self.port = free_port()
        self._to = port_of_server
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, str(PROXY), str(self.port), "127.0.0.1", str(self._to)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def cut(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def proxy(aws_endpoint: str, aws_credentials: None) -> Iterator[Proxy]:
    proxy = Proxy(int(aws_endpoint.rpartition(":")[2]))
    proxy.start()
    yield proxy
    proxy.cut()


def transport_at(endpoint: str, name: str = "") -> SQSTransport:
    name = name or f"faults-{uuid.uuid4().hex[:8]}"
    return open_transport(f"sqs://{name}?in={name}&lease=3&wait=1&endpoint={endpoint}", WORLD)


async def test_a_network_that_is_cut_loses_nothing(proxy: Proxy, aws_endpoint: str) -> None:
    name = f"cut-{uuid.uuid4().hex[:8]}"
    made(f"sqs://{name}?endpoint={aws_endpoint}")
    transport = transport_at(f"http://127.0.0.1:{proxy.port}", name)
    await transport.open()
    assert await transport.send([envelope("before")]) == []
    (held,) = await transport.receive(1)
    proxy.cut()
    with pytest.raises(TransportError, match="did not answer"):
        await transport.settle([held])
    with pytest.raises(TransportError, match="did not answer"):
        await transport.send([envelope("during")])
    with pytest.raises(TransportError, match="did not answer"):
        await transport.receive(1)
    proxy.start()
    assert await transport.send([envelope("during")]) == []
    came: set[str] = set()
    async with asyncio.timeout(10):
        while len(came) < 2:
            came |= {envelope_from_json(each.body).id for each in await transport.receive(10)}
    await transport.close()
    assert came == {"before", "during"}


async def test_a_queue_that_is_deleted_refuses_for_now_and_goes_on_when_it_is_back(
    aws_endpoint: str, aws_credentials: None
) -> None:
    name = f"gone-{uuid.uuid4().hex[:8]}"
    made(f"sqs://{name}?endpoint={aws_endpoint}")
    transport = transport_at(aws_endpoint, name)
    await transport.open()
    sqs = client("sqs", aws_endpoint)
    sqs.delete_queue(QueueUrl=sqs.get_queue_url(QueueName=name)["QueueUrl"])
    refused = await transport.send([envelope("a"), envelope("b")])
    assert [(one.event_id, one.retryable, "does not exist" in one.reason) for one in refused] == [
        ("a", True, True),
        ("b", True, True),
    ]
    with pytest.raises(TransportError, match="does not exist"):
        await transport.receive(1)
    made(f"sqs://{name}?endpoint={aws_endpoint}")
    assert await transport.send([envelope("a")]) == []
    assert len(await transport.receive(1)) == 1
    await transport.close()


async def test_a_queue_or_topic_that_is_missing_names_the_command(aws_endpoint: str, aws_credentials: None) -> None:
    for url in ("sqs://not-there", "sqs://?in=not-there", "sns://not-there"):
        sign = "&" if "?" in url else "?"
        with pytest.raises(ServiceError, match="tidings topology apply"):
            await open_transport(f"{url}{sign}endpoint={aws_endpoint}", WORLD).open()


async def test_a_service_starts_while_sqs_is_away_and_sends_when_it_is_there(
    tmp_path: Path, aws_credentials: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = AwsServer(tmp_path)
    service = Service("late", store=f"sqlite:///{tmp_path}/late.db", transport=f"sqs://late?endpoint={server.url}")
    service.register(Said)
    try:
        async with service:
            await service.publish(Said(text="early"))
            assert service.health()["outages"] == ["late:relay"]
            await asyncio.to_thread(server.start)
            await until(lambda: _text(caplog), lambda said: "tidings topology apply" in said)  # there is no queue yet
            made(service.transport_url or "")
            await until(lambda: _outages(service), lambda outages: not outages)
            async with asyncio.timeout(20):
                (came,) = await _first(server.url)
        assert envelope_from_json(came).type == "faults.said"
    finally:
        server.kill()


async def _text(caplog: pytest.LogCaptureFixture) -> str:
    return caplog.text


async def _outages(service: Service) -> list[str]:
    return list(service.health()["outages"])


async def _first(endpoint: str) -> list[bytes]:
    transport = open_transport(f"sqs://late?in=late&wait=5&endpoint={endpoint}", WORLD)
    await transport.open()
    came = await transport.receive(1)
    await transport.settle(came)
    await transport.close()
    return [each.body for each in came]


async def test_a_service_without_any_key_of_aws_does_not_start(
    aws_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    url = f"sqs://q?region=us-east-1&endpoint={aws_endpoint}"
    with pytest.raises(TransportError, match="Give this process a role or a key"):
        await Service("nobody", store=f"sqlite:///{tmp_path}/nobody.db", transport=url).__aenter__()


async def test_who_is_denied_is_refused_for_now_and_who_is_unknown_cannot_start(
    tmp_path: Path, aws_credentials: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = AwsServer(tmp_path, checks_rights=True).start()
    try:
        made(f"sqs://guarded?endpoint={server.url}")
        iam = botocore.session.get_session().create_client("iam", endpoint_url=server.url)
        iam.create_user(UserName="reader")
        iam.put_user_policy(UserName="reader", PolicyName="reads", PolicyDocument=ALLOWED)
        key = iam.create_access_key(UserName="reader")["AccessKey"]
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
        transport = transport_at(server.url, "guarded")
        await transport.open()
        (refused,) = await transport.send([envelope("a")])
        assert (refused.retryable, "AccessDenied" in refused.reason) == (True, True)
        await transport.close()
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        with pytest.raises(TransportError, match="a key that is valid"):
            await transport_at(server.url, "guarded").open()
    finally:
        server.kill()


async def test_a_broker_that_throttles_is_tried_again_and_then_an_outage(aws_credentials: None) -> None:
    asked: list[str] = []

    async def throttle(request: web.Request) -> web.Response:
        action = request.headers["X-Amz-Target"].rpartition(".")[2]
        asked.append(action)
        if action == "GetQueueUrl":
            return web.json_response({"QueueUrl": f"http://{request.host}/000000000000/q"})
        headers = {"x-amzn-query-error": "ThrottlingException;Sender"}
        return web.json_response(
            {"__type": "ThrottlingException", "message": "Rate exceeded"}, status=400, headers=headers
        )

    app = web.Application()
    app.router.add_post("/{path:.*}", throttle)
    runner = web.AppRunner(app)
    await runner.setup()
    port = free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    transport = transport_at(f"http://127.0.0.1:{port}", "q")
    await transport.open()
    with pytest.raises(TransportError, match="Rate exceeded"):
        await transport.send([envelope("a")])
    await transport.close()
    await runner.cleanup()
    assert asked.count("SendMessageBatch") == 3
