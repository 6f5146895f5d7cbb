"""The one vocabulary of events that every provider's webhooks are translated into.

The structs are plain data: the receiver encodes them into the job, the worker decodes them again,
and routing and planning read nothing else.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

Kind = Literal["push", "tag", "pull_request", "delete"]

Action = Literal[
    "opened",
    "reopened",
    "synchronize",
    "ready_for_review",
    "converted_to_draft",
    "edited",
    "labeled",
    "unlabeled",
    "closed",
]

Number = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
"""A number of a pull request, within what every reader of JSON understands."""

NO_COMMIT = "0" * 40
"""What git servers send as ``before`` of a created and ``after`` of a deleted ref."""

MAX_FILES = 5_000
"""Changed files kept of one push; a longer list is cut and marked incomplete."""

MAX_FILES_LENGTH = 262_144
"""Characters kept of all their paths together; likewise."""

MAX_EVENT = 1_048_576
"""Bytes of an encoded event, which is what waits in Redis. Nothing real comes near: besides paths,
message and title, which are cut, it holds names only."""

MAX_TIME = 64
"""Characters kept of a time that a sender wrote."""

MAX_MESSAGE = 4_096
"""Characters kept of a commit message."""


class Person(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who wrote a commit or opened a pull request; what the sender leaves out is empty."""

    name: str = ""
    email: str = ""
    login: str = ""

    def names(self) -> tuple[str, ...]:
        """Every form an operator may write this person in, without the empty ones."""
        return tuple(form for form in (self.login, self.name, self.email) if form)


class Push(msgspec.Struct, frozen=True, omit_defaults=True, tag="push", tag_field="event"):
    """A branch or tag that was created, moved or deleted."""

    repo: str
    """Full path of the repository, such as ``acme/web`` or ``group/subgroup/project``."""
    ref: str
    """``refs/heads/…`` or ``refs/tags/…``."""
    before: str
    after: str
    created: bool = False
    deleted: bool = False
    forced: bool = False
    files: tuple[str, ...] = ()
    """Paths added, modified or removed by the listed commits."""
    files_complete: bool = True
    """False where the sender's list may leave out changed files."""
    message: str = ""
    """Message of the head commit."""
    author: Person = Person()
    """Author of the head commit."""
    sender: str = ""
    """Login of whoever pushed."""
    repo_id: str = ""
    """The repository's id in the payload, as text; it stays when the repository is renamed."""
    changed_at: float | None = None
    """The clock in the body, in seconds since the Unix epoch; None where the body has none."""
    own_clock: bool = False
    """True where ``changed_at`` is the time of this event, false where it is the time of the
    repository's change before it."""
    before_told: bool = True
    """False where the sender does not tell where the ref stood; then ``before`` means nothing."""

    @property
    def kind(self) -> Kind:
        if self.deleted:
            return "delete"
        return "tag" if self.tag else "push"

    @property
    def branch(self) -> str:
        """Name of the branch, empty for a tag."""
        return self.ref.removeprefix("refs/heads/") if self.ref.startswith("refs/heads/") else ""

    @property
    def tag(self) -> str:
        """Name of the tag, empty for a branch."""
        return self.ref.removeprefix("refs/tags/") if self.ref.startswith("refs/tags/") else ""

    @property
    def sha(self) -> str:
        """The commit this event is about: for a deletion the one the ref pointed at."""
        return self.before if self.deleted else self.after


class PullRequest(
    msgspec.Struct, frozen=True, omit_defaults=True, tag="pull_request", tag_field="event"
):
    """A pull request (GitHub, Gitea, Forgejo, Gogs) or merge request (GitLab)."""

    repo: str
    """Full path of the repository the request asks to merge into."""
    number: Number
    action: Action
    head_sha: str
    head_ref: str
    """Name of the branch that asks to be merged."""
    head_repo: str
    """Full path of the repository of that branch; empty where it no longer exists."""
    base_ref: str
    """Name of the branch that would receive it."""
    title: str = ""
    draft: bool = False
    fork: bool = False
    """True where head and base are different repositories, or head's is gone."""
    merged: bool = False
    closed: bool = False
    """It is closed or merged, whatever the action says of this event."""
    labels: tuple[str, ...] = ()
    author: Person = Person()
    sender: str = ""
    updated_at: str = ""
    """When the sender last changed it, as the sender writes it; equal in all webhooks for one
    change, and different for the next one."""
    repo_id: str = ""
    """The id of the repository that the request asks to merge into, as text."""
    before_sha: str = ""
    """The head before a ``synchronize``; empty where the sender does not tell it."""
    changed_at: float | None = None
    """``updated_at`` in seconds since the Unix epoch; None where it cannot be read."""

    @property
    def kind(self) -> Kind:
        return "pull_request"

    @property
    def ref(self) -> str:
        return f"refs/heads/{self.head_ref}"

    @property
    def sha(self) -> str:
        return self.head_sha


Event = Push | PullRequest


class Ignored(msgspec.Struct, frozen=True):
    """A verified webhook that can never cause a deploy, and why."""

    reason: str
