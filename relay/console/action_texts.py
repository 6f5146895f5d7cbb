"""The texts of pages before and after an action."""

from __future__ import annotations

from typing import Literal

from relay.console.actions import Result
from relay.console.words import Action
from relay.ledger.actions import Refusal
from relay.ledger.records import RecordKind

Switch = Literal["pause", "resume"]

CONSEQUENCES: dict[tuple[RecordKind, Action], str] = {
    ("deploy", "replay"): (
        "Its call is made again, by the current settings of its target, as a new deploy "
        "behind all others of its branch."
    ),
    ("deploy", "cancel"): "It waits; it will not be called.",
    (
        "deploy",
        "approve",
    ): "It is called at once, unless its target has to wait for another reason.",
    ("deploy", "dismiss"): (
        "Nothing is called. It leaves the list of what needs attention; your reason is kept."
    ),
    ("delivery", "replay"): (
        "It is routed again, by the current routes. All its deploys are made, also those that "
        "succeeded the first time."
    ),
    ("delivery", "cancel"): "It waits; it will not be routed, and nothing is deployed.",
}

FORCEABLE: frozenset[Refusal] = frozenset({"overtaken", "replayed", "succeeded", "done"})
"""Refusals that a second confirmation overrules."""

SWITCHES: dict[Switch, str] = {
    "pause": "No call to it begins until it is resumed; its deploys wait. Calls under way go on.",
    "resume": "Calls begin again, first of all those that waited for it.",
}

DONE = {
    "replay": "replayed",
    "cancel": "cancelled",
    "approve": "approved",
    "dismiss": "dismissed",
    "pause": "paused",
    "resume": "resumed",
}

MESSAGES = {
    "replay": "This is the replay. It is queued now.",
    "cancel": "It was cancelled.",
    "approve": "It was approved and goes on.",
    "dismiss": "It was dismissed.",
    "pause": "The target is paused.",
    "resume": "The target was resumed.",
}
"""The message at the top of the page that follows an action."""


def warning(result: Result) -> str:
    """Return what a person has to know before an action, as a sentence; empty where there is
    nothing to know. ``result`` is that of a dry run."""
    if result.refusal in FORCEABLE:
        return _sentence(reason_of(result))
    if result.live is None:
        return ""
    live = result.live
    commit = live.sha[:12] or "a deletion"
    return f"{live.deploy} with {commit} is live at {live.target} now. Nothing newer is replaced."


def reason_of(result: Result) -> str:
    """Return why an action was refused, without what only the command line has."""
    return result.message.partition("; --force")[0].partition(", or use --force")[0]


def is_forceable(result: Result) -> bool:
    """Return whether a second confirmation overrules the refusal."""
    return result.refusal in FORCEABLE


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
