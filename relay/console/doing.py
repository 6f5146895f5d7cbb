"""What pages say before and after something is done."""

from __future__ import annotations

from typing import Literal

from relay.console.words import Action
from relay.statuses import Kind

Switch = Literal["pause", "resume"]

CONSEQUENCES: dict[tuple[Kind, Action], str] = {
    ("deploy", "replay"): (
        "It is called again, with its target's settings of now, as a deploy of its own. It becomes "
        "the newest of its branch."
    ),
    ("deploy", "cancel"): "It waits; it will not be called.",
    ("deploy", "approve"): "It is called at once, unless something else holds its target back.",
    ("delivery", "replay"): (
        "It is matched again, with the routes of now. All its deploys are made, those too that "
        "succeeded the first time."
    ),
    ("delivery", "cancel"): "It waits; it will not be matched, and nothing is deployed.",
}

SWITCHES: dict[Switch, str] = {
    "pause": "No call to it begins until it is resumed; its deploys wait. Calls under way go on.",
    "resume": "Calls begin again, first of all those that waited for it.",
}

DONE = {
    "replay": "replayed",
    "cancel": "cancelled",
    "approve": "approved",
    "pause": "paused",
    "resume": "resumed",
}

TOLD = {
    "replay": "This is the replay; it was queued just now.",
    "cancel": "It was cancelled.",
    "approve": "It was approved and goes on.",
    "pause": "The target is paused.",
    "resume": "The target was resumed.",
}
"""What a page says first after it was done."""
