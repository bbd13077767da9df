"""Transports on SQS queues and SNS topics: `sqs://out?in=name`, `sns://topic?in=name`; they need tidings[aws]."""

from tidings.errors import ServiceError

try:
    from tidings.backends.sqs.topology import open_topology
    from tidings.backends.sqs.transport import SQSTransport, open_transport
except ModuleNotFoundError as error:
    raise ServiceError(
        f'An sqs:// or sns:// transport needs the package {error.name}, which is not here: pip install "tidings[aws]".'
    ) from error

__all__ = ["SQSTransport", "open_topology", "open_transport"]
