"""What people do to deliveries, deploys and targets: what they ask for, and what they are told.

Each action is one guarded transaction with a row in the table ``action``. The actions are in
cancel.py, approve.py, dismiss.py, replay.py and pause.py; each is a function of a transaction.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from relay.events.event import Event
from relay.events.gate import moment
from relay.events.ids import public_id
from relay.ledger.rows import DeployLine, decode_event, seconds
from relay.ledger.transaction import Reader, Row, Transaction

ActionName = Literal["replay", "cancel", "approve", "dismiss", "pause", "resume", "revoke"]

Refusal = Literal[
    "unknown",
    "active",
    "replaying",
    "replayed",
    "busy",
    "succeeded",
    "done",
    "overtaken",
    "target",
    "gone",
    "started",
    "approved",
    "unasked",
    "untold",
    "undecided",
    "paused",
    "unpaused",
]

REFUSALS: Mapping[Refusal, str] = {
    "unknown": "no {kind} has this id; retention may have deleted it",
    "active": "it has not ended: it is {other}",
    "replaying": "its replay {other} has not ended",
    "replayed": "it was replayed as {other}; replay that one, or use --force",
    "busy": "{other} makes the same call and has not ended",
    "succeeded": "it has not failed; --force replays it nevertheless",
    "done": "{other} made the same call since and succeeded; --force replays it nevertheless",
    "overtaken": "{other}; --force does it nevertheless",
    "target": "relay.yaml no longer has its target {other}",
    "gone": "it has ended already: it is {other}",
    "started": "its call is being made; wait for the outcome",
    "approved": "{other} approved it before",
    "unasked": "it waits for no approval",
    "untold": "a reason is needed: --reason TEXT",
    "undecided": "only failed, uncertain and unknown deploys are dismissed; it is {other}",
    "paused": "it was paused before",
    "unpaused": "it was not paused",
}
"""Why an action was not done, for people. ``kind`` is delivery or deploy; ``other`` is an id, a
status, a name, or the consequence in words."""

MOST_NOTE = 1_000
"""Characters kept of a reason that a person gives."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks for an action, and how."""

    by: str
    """User of the operating system, or name of the console's token."""
    forced: bool = False
    """The person accepts the consequence."""
    dry: bool = False
    """Only say what would be done."""


class LiveDeploy(msgspec.Struct, frozen=True, kw_only=True):
    """The deploy that is live on a ref of a target."""

    deploy: int
    target: str
    sha: str
    at: float
    """When it ended, in seconds since the Unix epoch."""


class Consequence(msgspec.Struct, frozen=True, kw_only=True):
    """What a replay or a late approval would do to what is live."""

    live: LiveDeploy | None
    """None where no deploy succeeded there."""
    replaces: str
    """The commit that would replace it."""
    states_back: int
    """How many newer states of the ref were to be deployed there, its end included."""
    newer: int = 0
    """The newest deploy that comes after it and is live or has not ended; 0 for none."""
    called: int = 0
    """The newest deploy that comes after it and has been called; 0 for none."""

    @property
    def is_harmless(self) -> bool:
        """Whether nothing newer would be undone."""
        return not self.states_back and not self.newer

    def in_words(self) -> str:
        """Return the consequence as a sentence without its end."""
        commit = self.replaces[:12] or "a deletion"
        if self.live is None:
            first = f"nothing is live there, and {commit} would be"
        else:
            name = public_id("deploy", self.live.deploy)
            first = (
                f"{name} with {self.live.sha[:12] or 'a deletion'} is live there since "
                f"{moment(self.live.at)}, and {commit} would replace it"
            )
        states = "state" if self.states_back == 1 else "states"
        parts = [first, f"{self.states_back} {states} back"]
        if self.newer and (self.live is None or self.newer != self.live.deploy):
            parts.append(f"{public_id('deploy', self.newer)} is newer and has not ended")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """Return the consequence for ``--json`` and the API: ``live`` and ``states_back``."""
        live: dict[str, Any] = {}
        if self.live is not None:
            live = {
                "deploy": public_id("deploy", self.live.deploy),
                "target": self.live.target,
                "sha": self.live.sha,
                "at": moment(self.live.at),
            }
        return {"live": live, "replaces": self.replaces, "states_back": self.states_back}


class DeliveryLine(msgspec.Struct, frozen=True, kw_only=True):
    """A delivery, as far as each line of the audit names it."""

    id: int
    source: str
    event: Event
    remote: str
    config: str


class ActionLine(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the audit that follows from an action; relay/audit_fields.py has its fields."""

    event: str
    subject: DeployLine | DeliveryLine | None
    fields: Mapping[str, Any] = {}


class Done(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one wish. An empty ``refusal`` means that it was done, or would be."""

    id: str
    """The id that people see, or the name of a target."""
    new: str = ""
    """The id of the replay."""
    refusal: Refusal | Literal[""] = ""
    other: str = ""
    """What the refusal names."""
    consequence: Consequence | None = None
    """Of a replay or an approval."""
    lines: Sequence[ActionLine] = ()
    """To be written after the commit."""
    woken: Sequence[int] = ()
    """Deploys that are due now."""

    def message(self, kind: str) -> str:
        """Return why it was not done, for people; empty where it was. ``kind`` is delivery, deploy
        or target."""
        if not self.refusal:
            return ""
        return REFUSALS[self.refusal].format(kind=kind, other=self.other)


async def note_action(tx: Transaction, what: ActionName, subject: str, by: str, note: str) -> None:
    """Keep what a person did."""
    noted = {"what": what, "subject": subject, "by": by, "note": note[:MOST_NOTE], "now": tx.now}
    await tx.run("insert_action", noted)


def delivery_line(row: Row) -> DeliveryLine:
    """Return a row of the table ``delivery`` as the audit names it."""
    return DeliveryLine(
        id=row["id"],
        source=row["source"],
        event=decode_event(row["event"]),
        remote=row["remote"],
        config=row["config"],
    )


def superseded_line(line: DeployLine, by: int) -> ActionLine:
    """Return the line of a deploy that gave way to a newer one."""
    fields = {"by": public_id("deploy", by)}
    return ActionLine(event="deploy.superseded", subject=line, fields=fields)


async def consequence_of(tx: Reader, deploy: int) -> Consequence:
    """Return what calling this deploy once more would do to what is live on its ref."""
    row = await tx.row("consequence_of_deploy", {"deploy": deploy})
    if row is None:
        raise LookupError(f"no deploy {deploy}")
    return _consequence(row)


async def consequence_of_delivery(tx: Reader, delivery: int) -> Consequence:
    """Return what routing this delivery once more would do to what is live on its ref, at any
    target."""
    row = await tx.row("consequence_of_delivery", {"delivery": delivery})
    if row is None:
        raise LookupError(f"no delivery {delivery}")
    return _consequence(row)


def _consequence(row: Row) -> Consequence:
    live = None
    if row["live"] is not None:
        live = LiveDeploy(
            deploy=row["live"],
            target=row["live_target"],
            sha=row["live_sha"],
            at=seconds(row["live_at"]),
        )
    return Consequence(
        live=live,
        replaces=row["sha"],
        states_back=row["states_back"] + row["ends_back"],
        newer=row["newer"] or 0,
        called=row["called"] or 0,
    )
