"""The events of the handler's tests, and a function that prints labels."""

from collections.abc import Callable

from invoking import Invoking

from tidings import Event, Service, Work

Make = Callable[[Callable[[Service], None]], Invoking]


class Ordered(Event, name="lambda.ordered", version=1, key="order"):
    """An order came in."""

    order: str


class Printed(Event, name="lambda.printed", version=1, key="order"):
    """Its label was printed: `number` is another one each time."""

    order: str
    number: int


class Drawn(Event, name="lambda.drawn", version=1):
    """A picture that is as large as an event can be."""

    picture: str


def printing(invoking: Make, **options: object) -> Invoking:
    """A function that prints two labels for each order, and fails for those that are to fail."""

    def subscribe(service: Service) -> None:
        service.register(Printed)

        @service.subscribe(Ordered, name="print_label", **options)  # type: ignore[arg-type]
        async def print_label(event: Ordered, work: Work) -> None:
            made.calls.append((event.order, work.attempt))
            if event.order.startswith("bad"):
                raise ValueError("no label for you")
            async with work.finish() as tx:
                for _ in range(2):
                    tx.publish(Printed(order=event.order, number=len(made.calls)))

    made = invoking(subscribe)
    return made
