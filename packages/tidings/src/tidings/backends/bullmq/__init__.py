"""The transport on BullMQ queues in Redis: `bullmq://host:port/db?queue=out&in=name`; needs tidings[bullmq]."""

from tidings.errors import ServiceError

try:
    from tidings.backends.bullmq.transport import BullMQTransport, open_transport
except ModuleNotFoundError as error:
    raise ServiceError(
        f'A bullmq:// transport needs the package {error.name}, which is not here: pip install "tidings[bullmq]".'
    ) from error

__all__ = ["BullMQTransport", "open_transport"]
