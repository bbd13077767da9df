"""The admin page of dead letters: list, look at the attempts, redrive, discard with a reason."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils import timezone
from django.utils.html import format_html_join

from tidings.errors import OperationError
from tidings.integrations.django import operating
from tidings.integrations.django.models import DeadLetter
from tidings.operations import Outcome


@admin.register(DeadLetter)
class DeadLetterAdmin(admin.ModelAdmin):
    """Dead letters. Each action has its own permission."""

    list_display = ("type", "key", "subscription", "state", "attempts", "short_reason", "updated")
    list_filter = ("state", "subscription", "type")
    search_fields = ("event_id", "key", "reason")
    fields = ("subscription", "state", "type", "key", "event_id", "position", "updated", "actor", "reason",
              "attempts", "tries", "data")  # fmt: skip
    readonly_fields = fields
    actions = ("redrive", "discard")

    @admin.display(description="reason")
    def short_reason(self, letter: DeadLetter) -> str:
        """The beginning of the reason."""
        return (letter.reason or "")[:80]

    @admin.display(description="each attempt")
    def tries(self, letter: DeadLetter) -> str:
        """Every attempt's error and traceback."""
        rows = [(one["attempt"], one["error"], one["message"], one["traceback"]) for one in letter.failures or ()]
        return format_html_join("", "<details><summary>{}: {}: {}</summary><pre>{}</pre></details>", rows)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: events are published, not typed."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: an event never changes."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: nothing vanishes; discard it instead."""
        return False

    def has_redrive_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may let dead letters be tried again."""
        return bool(request.user.has_perm("tidings.redrive_deadletter"))

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Say whether the user may give dead letters up."""
        return bool(request.user.has_perm("tidings.discard_deadletter"))

    @admin.action(description="Redrive: try again with all attempts", permissions=["redrive"])
    def redrive(self, request: HttpRequest, chosen: QuerySet[DeadLetter]) -> None:
        """Let the chosen be tried again."""
        outcome = operating.redrive(chosen, actor=_actor(request), now=timezone.now(), using=chosen.db)
        self._report(request, "redriven", outcome)

    @admin.action(description="Discard: give up, with a reason", permissions=["discard"])
    def discard(self, request: HttpRequest, chosen: QuerySet[DeadLetter]) -> HttpResponse | None:
        """Ask for the reason, then give the chosen up."""
        if "reason" in request.POST:
            try:
                outcome = operating.discard(
                    chosen, actor=_actor(request), reason=request.POST["reason"], now=timezone.now(), using=chosen.db
                )
            except OperationError as error:
                self.message_user(request, str(error), messages.ERROR)
            else:
                self._report(request, "discarded", outcome)
                return None
        context = {**self.admin_site.each_context(request), "title": "Discard dead letters", "letters": chosen}
        return TemplateResponse(request, "admin/tidings/discard.html", context)

    def _report(self, request: HttpRequest, done: str, outcome: Outcome) -> None:
        self.message_user(request, f"{outcome.done} {done}.", messages.SUCCESS)
        if outcome.changed:
            self.message_user(request, f"{outcome.changed} had changed meanwhile and were left.", messages.WARNING)
        for refusal in outcome.refused:
            self.message_user(request, refusal, messages.ERROR)


def _actor(request: HttpRequest) -> str:
    return str(request.user.get_username())
