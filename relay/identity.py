"""Which deliveries are the same delivery, and which deploys are the same deploy.

Pure functions; the atomic comparison happens in Redis (relay/queueing.py, workers/deploys.py).
"""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterator

from relay.events.event import NO_COMMIT, Event, PullRequest, Push
from relay.events.timestamp import parse_timestamp

_JOB_ID = re.compile(r"(?!body-|id-|.*-replay-[0-9]+\Z)[A-Za-z0-9_-]{1,128}")

_REPLAY = re.compile(r"-replay-([0-9]{1,9})\Z")

_DEPLOY = re.compile(r".*--[0-9a-f]{24}(-[0-9]+)?")


def may_be_deploy(id_: str) -> bool:
    """Whether an id looks like one of a deploy, ``<target>--<identity>`` and perhaps a number. That
    of a delivery may too; no deploy's does not."""
    return _DEPLOY.fullmatch(id_) is not None


def delivery_id(source: str, sent_id: str, fingerprint: str) -> str:
    """The id of a delivery, which is the id of its RQ job too: ``<source>--<the sender's id>``.

    A sender's id that RQ would refuse, or that looks like one made here, is hashed; without one
    the body's fingerprint identifies the delivery, so that a retry with the same bytes is
    recognised all the same.
    """
    if not sent_id:
        return f"{source}--body-{fingerprint}"
    if _JOB_ID.fullmatch(sent_id):
        return f"{source}--{sent_id}"
    hashed = hashlib.blake2b(sent_id.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    return f"{source}--id-{hashed}"


def is_replay(delivery: str) -> bool:
    """Whether a delivery's id is one of a replay. No sender's id is taken for one."""
    return _REPLAY.search(delivery) is not None


def replay_ids(delivery: str) -> Iterator[str]:
    """Ids for a replay of a delivery, or of its replay, in the order in which they are taken."""
    found = _REPLAY.search(delivery)
    base, number = (delivery[: found.start()], int(found[1])) if found else (delivery, 0)
    return (f"{base}-replay-{next_number}" for next_number in itertools.count(number + 1))


def phase(event: Event) -> str:
    """What a deploy of this event is about: opening, updating and readying a pull request are one
    and the same preview, closing it is another matter, and reopening it starts afresh."""
    if isinstance(event, PullRequest):
        again = event.action in ("closed", "reopened")
        return f"pull_request.{event.action if again else 'open'}"
    return event.kind


def subject(target: str, event: Event) -> str:
    """The thing that a deploy brings up to date: one branch, tag or pull request at one target."""
    at = f"#{event.number}" if isinstance(event, PullRequest) else event.ref
    return _digest(target, event.repo.lower(), at)


def deploy_identity(target: str, event: Event) -> str:
    """Equal for all events that mean the same deploy: same target, repository, ref, commit and
    phase, whichever webhook brought them."""
    return _digest(subject(target, event), event.sha, phase(event))


def transition(event: Event) -> str:
    """What tells one change from another one that ends at the same commit; empty if nothing does.

    A branch that is moved back to a commit which was deployed before arrives from elsewhere than
    the first time, and a pull request that is closed again was changed later. A second webhook for
    the same change has the same transition, however late it comes.
    """
    if isinstance(event, PullRequest):
        return f"{event.action} {event.updated_at}" if event.updated_at else ""
    return "" if event.deleted and event.before == event.after else event.before


def arrival(event: Event) -> tuple[str, str]:
    """Where the change led from and to: a commit, no commit, or nothing if the event has no such
    thing. A change that starts where the last one ended is a new one."""
    return (event.before, event.after) if isinstance(event, Push) else ("", event.sha)


def landing(event: Event) -> str:
    """The commit that a branch or tag was moved to from another one; empty where it came into
    being, went away, or is none. A later move starts there."""
    moved = isinstance(event, Push) and NO_COMMIT not in (event.before, event.after)
    return event.sha if moved else ""


def changed_at(event: Event) -> float | None:
    """Return when a pull request was changed, in seconds since the Unix epoch, as its sender says;
    None for other events and where the time cannot be read.
    """
    # Not the field of the same name: jobs that an earlier release stored have the text only.
    return parse_timestamp(event.updated_at) if isinstance(event, PullRequest) else None


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=12).hexdigest()
