"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    """An order, as it was placed."""

    id = models.TextField(primary_key=True)
    cents = models.IntegerField()

    def __str__(self) -> str:
        return f"order {self.id}"


class Charge(models.Model):
    """The money of an order. Two for one order would be refused."""

    order = models.OneToOneField(Order, on_delete=models.PROTECT, primary_key=True)
    cents = models.IntegerField()

    def __str__(self) -> str:
        return f"charge of {self.order_id}"
