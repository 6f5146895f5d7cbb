"""Gitea, and what Forgejo and Gogs have kept of the same webhooks.

https://docs.gitea.com/usage/webhooks
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from relay.errors import Malformed, Unauthorized
from relay.events.event import (
    NO_COMMIT,
    Action,
    Event,
    Ignored,
    Number,
    Person,
    PullRequest,
    Push,
)
from relay.events.timestamp import parse_timestamp
from relay.providers.payloads import (
    ABSENT,
    Commit,
    changed_files,
    decode,
    head_message,
    is_no_commit,
    person,
    read_clock,
    read_id,
    read_time_text,
    unwrap,
)
from relay.providers.provider import Headers, ReadsFiles, always
from relay.providers.signatures import FINGERPRINT_LENGTH, HmacKeys, checked_secrets, from_hex

_ACTIONS: dict[str, Action] = {
    "opened": "opened",
    "reopened": "reopened",
    "closed": "closed",
    "edited": "edited",
    "synchronized": "synchronize",
    "synchronize": "synchronize",
    "ready_for_review": "ready_for_review",
    "label_updated": "labeled",
    "label_cleared": "unlabeled",
}

_DRAFT_PREFIXES = ("wip:", "[wip]", "draft:", "[draft]")
"""Titles that make a draft where the payload has no such field."""


class _Named(msgspec.Struct):
    full_name: str


class _Repository(_Named):
    id: msgspec.Raw = ABSENT
    updated_at: msgspec.Raw = ABSENT
    """When the repository was changed before this event, not when this event was."""


class _User(msgspec.Struct):
    login: str | None = None
    username: str | None = None
    email: str | None = None
    full_name: str | None = None


class _Push(msgspec.Struct):
    ref: str
    before: str
    after: str
    repository: _Repository
    commits: list[Commit] | None = None
    total_commits: int | None = None
    head_commit: Commit | None = None
    sender: _User | None = None


class _Delete(msgspec.Struct):
    ref: str
    ref_type: str
    repository: _Repository
    sha: str | None = None
    sender: _User | None = None


class _Label(msgspec.Struct):
    name: str | None = None


class _Ref(msgspec.Struct):
    ref: str
    sha: str
    repo: _Named | None = None


class _PullRequest(msgspec.Struct):
    title: str | None = None
    draft: bool | None = None
    merged: bool | None = None
    state: str | None = None
    updated_at: msgspec.Raw = ABSENT
    labels: list[_Label] | None = None
    user: _User | None = None
    head: _Ref | None = None
    base: _Ref | None = None
    head_branch: str | None = None
    base_branch: str | None = None
    head_repo: _Named | None = None


class _PullRequestEvent(msgspec.Struct):
    action: str
    number: Number
    pull_request: _PullRequest
    repository: _Repository
    sender: _User | None = None


_push = msgspec.json.Decoder(_Push)
_delete = msgspec.json.Decoder(_Delete)
_pull_request = msgspec.json.Decoder(_PullRequestEvent)


class Gitea:
    """A bare hexadecimal HMAC-SHA256 in a header of the product's own name."""

    name: ClassVar[str] = "gitea"
    keeps_delivery_id: ClassVar[bool] = False
    brands: ClassVar[tuple[str, ...]] = ("Gitea",)
    """Words in the header names, the preferred one first: ``X-<brand>-Signature``."""

    def __init__(
        self, secrets: Sequence[str], signing_tokens: Sequence[str] = (), tolerance: float = 300
    ) -> None:
        """``tolerance`` is not used: no time is signed. Raises ValueError without a secret."""
        if not secrets or signing_tokens:
            raise ValueError(f"{self.name} needs secrets, and nothing else")
        self._secrets = checked_secrets(secrets)
        self._keys = HmacKeys(self._secrets)

    def require(self, headers: Headers) -> None:
        """See Provider.require."""
        self._signature(headers)

    def verify(self, headers: Headers, body: bytes, now: float) -> str:
        """See Provider.verify."""
        signature = self._keys.vouch([from_hex(self._signature(headers))], body)
        if not signature:
            raise Unauthorized("no configured secret made this signature")
        return signature.hex()[:FINGERPRINT_LENGTH]

    def delivery_id(self, headers: Headers) -> str:
        """``X-<brand>-Delivery``."""
        return self._header(headers, "Delivery")

    def parse(
        self, headers: Headers, body: bytes, reads_files: ReadsFiles = always
    ) -> Event | Ignored:
        """See Provider.parse."""
        name = self._header(headers, "Event")
        body = unwrap(headers.get("Content-Type", ""), body)
        match name:
            case "push":
                return _translate_push(decode(_push, body), reads_files)
            case "delete":
                return _translate_delete(decode(_delete, body))
            case "pull_request" | "pull_request_sync" | "pull_request_label":
                return _translate_pull_request(decode(_pull_request, body))
            case "create":
                return Ignored("create events are ignored: the push event says the same")
            case "":
                raise Malformed(f"X-{self.brands[0]}-Event is missing")
            case _:
                return Ignored(f"{name[:64]} events never deploy")

    def sign(self, body: bytes, kind: str, delivery_id: str, now: float) -> dict[str, str]:
        """See Provider.sign."""
        brand = self.brands[0]
        return {
            "Content-Type": "application/json",
            f"X-{brand}-Event": "pull_request" if kind == "pull_request" else "push",
            f"X-{brand}-Delivery": delivery_id,
            f"X-{brand}-Signature": hmac.digest(self._secrets[0], body, "sha256").hex(),
        }

    def _signature(self, headers: Headers) -> str:
        sent = self._header(headers, "Signature")
        if not sent:
            sent = headers.get("X-Hub-Signature-256", "").removeprefix("sha256=")
        if not sent:
            wanted = f"X-{self.brands[0]}-Signature"
            raise Unauthorized(f"{wanted} is missing: the webhook has no secret set")
        return sent

    def _header(self, headers: Headers, word: str) -> str:
        for brand in self.brands:
            found = headers.get(f"X-{brand}-{word}")
            if found:
                return found
        return ""


def _translate_push(push: _Push, reads_files: ReadsFiles) -> Push | Ignored:
    deleted = is_no_commit(push.after)
    if deleted and push.ref.startswith("refs/tags/"):
        # A deleted tag is announced twice, a deleted branch only by the delete event.
        return Ignored("deletions are taken from the delete event")
    repo = push.repository.full_name
    # Gogs leaves the prefix off.
    ref = push.ref if push.ref.startswith("refs/") else f"refs/heads/{push.ref}"
    commits = push.commits or []
    files, listed = changed_files(commits) if reads_files(repo) else ((), False)
    created = is_no_commit(push.before)
    total = len(commits) if push.total_commits is None else push.total_commits
    complete = listed and 0 < total <= len(commits) and not (created or deleted)
    head = push.head_commit or next((commit for commit in commits if commit.id == push.after), None)
    return Push(
        repo=repo,
        ref=ref,
        before=push.before,
        after=push.after,
        created=created,
        deleted=deleted,
        files=files,
        files_complete=complete,
        message=head_message(head),
        author=person(head.author) if head else Person(),
        sender=_login(push.sender),
        repo_id=read_id(push.repository.id),
        changed_at=read_clock(push.repository.updated_at),
        # A moved tag is sent as a new one is, with zeros. A mirror sends where its tag stood.
        before_told=bool(push.before) and not (created and ref.startswith("refs/tags/")),
    )


def _translate_delete(event: _Delete) -> Push | Ignored:
    folder = {"branch": "heads", "tag": "tags"}.get(event.ref_type)
    if folder is None:
        return Ignored(f"a deleted {event.ref_type[:64]} never deploys")
    name = event.ref.removeprefix(f"refs/{folder}/")
    return Push(
        repo=event.repository.full_name,
        ref=f"refs/{folder}/{name}",
        before=event.sha or NO_COMMIT,
        after=NO_COMMIT,
        deleted=True,
        files_complete=False,
        sender=_login(event.sender),
        repo_id=read_id(event.repository.id),
        changed_at=read_clock(event.repository.updated_at),
        before_told=not is_no_commit(event.sha or ""),
    )


def _translate_pull_request(event: _PullRequestEvent) -> PullRequest | Ignored:
    action = _ACTIONS.get(event.action)
    if action is None:
        return Ignored(f"pull_request action {event.action[:64]} never deploys")
    pull = event.pull_request
    if pull.head is None or pull.base is None:
        # Gogs names the branches but not the head commit, so there is nothing to deploy.
        return Ignored("the pull request event does not name its head commit")
    repo = event.repository.full_name
    head_repo = pull.head.repo.full_name if pull.head.repo else ""
    title = pull.title or ""
    draft = pull.draft
    if draft is None:
        draft = title.lower().startswith(_DRAFT_PREFIXES)
    user = pull.user or _User()
    updated_at = read_time_text(pull.updated_at)
    return PullRequest(
        repo=repo,
        number=event.number,
        action=action,
        head_sha=pull.head.sha,
        head_ref=pull.head.ref,
        head_repo=head_repo,
        base_ref=pull.base.ref,
        title=title[:512],
        draft=draft,
        fork=head_repo.lower() != repo.lower(),
        merged=bool(pull.merged),
        closed=pull.state == "closed",
        labels=tuple(label.name for label in pull.labels or () if label.name),
        author=Person(name=user.full_name or "", email=user.email or "", login=_login(user)),
        sender=_login(event.sender),
        updated_at=updated_at,
        repo_id=read_id(event.repository.id),
        changed_at=parse_timestamp(updated_at),
    )


def _login(user: _User | None) -> str:
    return (user.login or user.username or "") if user else ""
