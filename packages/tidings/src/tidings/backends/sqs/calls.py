"""AWS's clients: one to send and settle with, one whose calls wait for messages; their errors are ours."""

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError
from botocore.loaders import create_loader

from tidings.backends.sqs.address import Address
from tidings.errors import ServiceError, TransportError

CONNECT_SECONDS, ANSWER_SECONDS = 5.0, 20.0
"""So long a connection and an answer may take; a question that waits for messages has that much more."""

CONNECTIONS = 32
"""Calls that may be under way at a time."""

TRIES = 3
"""So often a call is made that is throttled or fails on its way; each pauses longer than the one before."""

_models = create_loader()
"""Reads AWS's descriptions of its services, each once in a process: that takes as long as twenty calls."""

_MISSING = ("NonExistentQueue", "QueueDoesNotExist", "NotFound", "NonExistent")
_DENIED = ("AccessDenied", "AuthorizationError", "KMS", "Kms", "InvalidSecurity")
_UNKNOWN_CALLER = ("InvalidClientTokenId", "ExpiredToken", "SignatureDoesNotMatch", "UnrecognizedClient")
UNFIT = ("TooLong", "InvalidParameterValue", "InvalidParameter", "InvalidMessageContents", "InvalidAttribute")
"""Ends and parts of codes that say: this request, unchanged, is never taken."""


class PlaceError(TransportError):
    """A queue or topic is `missing`, or denied: what is sent there is refused until somebody has put it right."""

    def __init__(self, text: str, missing: bool) -> None:
        super().__init__(text)
        self.missing = missing


class UnknownCallerError(TransportError):
    """AWS does not know who is asking: it stays so until somebody gives this process another key."""

    retryable = False


class UnfitError(TransportError):
    """A request is refused for what is in it."""

    retryable = False


class Calls:
    """The clients of one address. Every call raises TransportError, or one of the errors above."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._clients = AsyncExitStack()
        self.sqs: Any = None
        self.waiting: Any = None
        self.sns: Any = None

    async def open(self) -> None:
        """Make the clients; nothing is sent yet. Raises ServiceError where no region is known."""
        session = _session()

        async def client(service: str, seconds: float) -> Any:
            # Parameters are made here, and tested against a server: checking each of them takes a third of a call.
            config = AioConfig(
                connect_timeout=CONNECT_SECONDS, read_timeout=seconds, max_pool_connections=CONNECTIONS,
                retries={"mode": "standard", "total_max_attempts": TRIES}, parameter_validation=False,
            )  # fmt: skip
            made = session.create_client(
                service, region_name=self._address.region, endpoint_url=self._address.endpoint, config=config
            )
            return await self._clients.enter_async_context(made)

        try:
            self.sqs = await client("sqs", ANSWER_SECONDS)
            if self._address.inward or self._address.dead:
                self.waiting = await client("sqs", ANSWER_SECONDS + self._address.wait)
            if self._address.topics or self._address.sources:
                self.sns = await client("sns", ANSWER_SECONDS)
        except (NoRegionError, ValueError) as error:
            await self._clients.aclose()
            raise ServiceError(
                f"AWS cannot be used: {error}. Say region=… in the transport's URL, or set AWS_DEFAULT_REGION; an "
                "endpoint=… begins with http:// or https://."
            ) from error

    async def close(self) -> None:
        """Disconnect."""
        await self._clients.aclose()

    async def call(self, client: Any, operation: str, **said: Any) -> Any:
        """Make one call."""
        try:
            return await getattr(client, operation)(**said)
        except ClientError as error:
            raise _told(error, operation) from error
        except (NoCredentialsError, PartialCredentialsError) as error:
            raise UnknownCallerError(
                f"AWS was not asked to {operation}: {error}. Give this process a role or a key (AWS_ACCESS_KEY_ID …)."
            ) from error
        except (BotoCoreError, OSError, TimeoutError) as error:
            raise TransportError(f"AWS did not answer to {operation}: {error}. It is tried again.") from error

    async def queue_url(self, name: str) -> str:
        """Return the URL of a queue; raises ServiceError if there is none."""
        owner = {"QueueOwnerAWSAccountId": self._address.account} if self._address.account else {}
        try:
            answer = await self.call(self.sqs, "get_queue_url", QueueName=name, **owner)
        except PlaceError as error:
            raise missing("queue", name, error) from error
        return str(answer["QueueUrl"])

    async def topic_arn(self, name: str) -> str:
        """Return the ARN of a topic; raises ServiceError if there is none."""
        arn = await self.arn_of_topic(name)
        try:
            await self.call(self.sns, "get_topic_attributes", TopicArn=arn)
        except PlaceError as error:
            raise missing("topic", name, error) from error
        return arn

    async def arn_of_topic(self, name: str) -> str:
        """Return the ARN that a topic has or would have."""
        account = self._address.account or await self._account()
        return f"arn:{self.sns.meta.partition}:sns:{self.sns.meta.region_name}:{account}:{name}"

    async def _account(self) -> str:
        """Return the account of our own key. Nobody needs a right to ask this."""
        session = _session()
        made = session.create_client(
            "sts", region_name=self._address.region, endpoint_url=self._address.endpoint,
            config=AioConfig(connect_timeout=CONNECT_SECONDS, read_timeout=ANSWER_SECONDS),
        )  # fmt: skip
        async with made as sts:
            return str((await self.call(sts, "get_caller_identity"))["Account"])


def _session() -> Any:
    session = get_session()
    session.register_component("data_loader", _models)
    return session


def missing(kind: str, name: str, error: TransportError) -> ServiceError:
    """Return the error of a queue or topic that is not there, or not for us."""
    return ServiceError(
        f"The {kind} {name} cannot be used: {error} `tidings topology check MODULE:SERVICE` says what is missing, and "
        "`tidings topology apply MODULE:SERVICE` makes it."
    )


def code_of(error: ClientError) -> tuple[str, str]:
    """Return AWS's code of an error, and its words."""
    said = error.response.get("Error", {})
    return str(said.get("Code", "")), str(said.get("Message", error)).rstrip(".")


def _told(error: ClientError, operation: str) -> TransportError:
    code, words = code_of(error)
    text = f"AWS refused to {operation}: {words} ({code})."
    if any(part in code for part in _UNKNOWN_CALLER):
        return UnknownCallerError(f"{text} Give this process a key that is valid, and see that its clock is right.")
    if any(part in code for part in (*_MISSING, *_DENIED)):
        return PlaceError(text, any(part in code for part in _MISSING))
    if any(part in code for part in UNFIT):
        return UnfitError(text)
    return TransportError(f"{text} It is tried again.")


async def together(calls: Sequence[Any]) -> list[Any]:
    """Make calls at once; wait for all of them, then raise the first error if there was one."""
    answers = await asyncio.gather(*calls, return_exceptions=True)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return list(answers)
