"""What one webhook says about its ref, as far as the history of the ref needs it. No I/O.

The rule that judges it is in ref_history.py.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from relay.events.event import Event, PullRequest, Push

OPEN = " open"
"""End of the value of a pull request that is open; the commit stands before it."""

CLOSED = " closed"
"""End of the value of a pull request that is closed or merged."""

_MOVES = frozenset({"opened", "reopened", "synchronize", "closed"})
"""Actions that change the value of a pull request. All others are touches: labels, drafts, edits
and reviews move nothing, but name the value."""


class RefChange(msgspec.Struct, frozen=True):
    """A change of a ref, as one webhook tells it."""

    name: str
    """``refs/heads/main``, ``refs/tags/v1``, or ``#12`` for a pull request."""
    origin: str | None
    """The value before: None where the sender does not tell it, empty where the ref did not
    exist."""
    value: str
    """The value after: a commit, empty where the ref no longer exists; of a pull request
    ``<commit> open`` or ``<commit> closed``."""
    at: float | None = None
    """The clock of the payload, in seconds since the Unix epoch; None where it has none."""
    own_clock: bool = False
    """True where ``at`` is the time of this event, false where it is the time of the repository's
    change before it (Gitea, Forgejo, Gogs)."""
    touch: bool = False
    """True where the event moves nothing and only names the value."""
    opened: bool = False
    """True where the event is the first one of its pull request."""
    moves_head: bool = False
    """True where the event is a push to a pull request, which only an open one can have."""
    keeps_id: bool = False
    """True where a redelivery has the delivery id of the first attempt."""

    @property
    def ends(self) -> bool:
        """Whether the ref no longer exists after it, or the pull request is closed."""
        return not self.value or self.value.endswith(CLOSED)


def ref_change(event: Event, *, keeps_id: bool) -> RefChange:
    """Return what an event says about its ref.

    ``keeps_id`` is a fact of the provider: whether its redelivery keeps the delivery id.
    """
    if isinstance(event, PullRequest):
        return _pull_request_change(event, keeps_id)
    return _push_change(event, keeps_id)


def repository_key(event: Event, server: str) -> str:
    """Return the key of the event's repository among those of all git servers.

    It is the repository's id in the payload, so that it outlives a rename, or the lower-case name
    where the payload has no id. The length of the server's name stands first: without it a server
    called ``a:id:1`` could be taken for the server ``a`` and its repository.
    """
    kind, key = ("id", event.repo_id) if event.repo_id else ("name", event.repo.lower())
    return f"{len(server)}:{server}:{kind}:{key}"


def ref_name(event: Event) -> str:
    """Return the name of the event's ref within its repository, ``#12`` for a pull request.

    No branch or tag can have such a name, because theirs begin with ``refs/``.
    """
    return f"#{event.number}" if isinstance(event, PullRequest) else event.ref


def _push_change(event: Push, keeps_id: bool) -> RefChange:
    value = "" if event.deleted else _commit(event.after)
    origin: str | None = _commit(event.before)
    if not event.before_told or (not value and not origin):
        # A ref that is deleted was somewhere; zeros on both sides mean that nothing is told.
        origin = None
    return RefChange(
        name=ref_name(event),
        origin=origin,
        value=value,
        at=event.changed_at,
        own_clock=event.own_clock and event.changed_at is not None,
        keeps_id=keeps_id,
    )


def _pull_request_change(event: PullRequest, keeps_id: bool) -> RefChange:
    closed = event.action == "closed"
    if event.action not in _MOVES:
        # A label may come for a request that is closed.
        closed = event.closed or event.merged
    at = event.changed_at if event.changed_at is not None else _seconds(event.updated_at)
    return RefChange(
        name=ref_name(event),
        origin=_pull_request_origin(event),
        value=event.head_sha + (CLOSED if closed else OPEN),
        at=at,
        own_clock=at is not None,
        touch=event.action not in _MOVES,
        opened=event.action == "opened",
        moves_head=event.action == "synchronize",
        keeps_id=keeps_id,
    )


def _pull_request_origin(event: PullRequest) -> str | None:
    if event.action == "opened":
        return ""
    if event.action == "synchronize" and _commit(event.before_sha):
        return event.before_sha + OPEN
    return None


def _commit(sha: str) -> str:
    """Return the commit, or nothing for zeros."""
    return sha if sha.strip("0") else ""


def _seconds(text: str) -> float | None:
    """Return a time in seconds since the Unix epoch, or None if it is no time with a zone.

    Reads ISO 8601, and what GitLab writes: ``2026-01-31 12:00:00 UTC``.
    """
    text = text.replace(" UTC", "+00:00").replace(" +", "+").replace(" -", "-")
    try:
        time = datetime.fromisoformat(text)
        return None if time.tzinfo is None else time.timestamp()
    except (ValueError, OverflowError):
        return None
