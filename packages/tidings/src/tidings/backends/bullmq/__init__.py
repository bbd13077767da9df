"""The transport on BullMQ queues in Redis: `bullmq://host:port/db?queue=out&in=name`; needs tidings[bullmq]."""

from tidings.backends.bullmq.transport import BullMQTransport, open_transport

__all__ = ["BullMQTransport", "open_transport"]
