"""GitHub.com and GitHub Enterprise Server.

https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries
https://docs.github.com/en/webhooks/webhook-events-and-payloads
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from typing import ClassVar, cast, get_args

import msgspec

from relay.errors import Malformed, Unauthorized
from relay.events.event import Action, Event, Ignored, Number, Person, PullRequest, Push
from relay.events.timestamp import parse_timestamp
from relay.providers.payloads import (
    ABSENT,
    Commit,
    CommitFiles,
    changed_files,
    commit_or_nothing,
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

MAX_COMMITS = 2_048
"""Commits that GitHub lists of one push at most; then there may be more.
https://docs.github.com/en/webhooks/webhook-events-and-payloads#push"""

_ACTIONS = frozenset(get_args(Action))


class _Named(msgspec.Struct):
    full_name: str


class _Repository(_Named):
    id: msgspec.Raw = ABSENT
    pushed_at: msgspec.Raw = ABSENT


class _User(msgspec.Struct):
    login: str | None = None


class _Push(msgspec.Struct):
    ref: str
    before: str
    after: str
    repository: _Repository
    created: bool | None = None
    deleted: bool | None = None
    forced: bool | None = None
    commits: msgspec.Raw = ABSENT
    """Left as it is until somebody asks for it; it is most of a large push."""
    head_commit: Commit | None = None
    sender: _User | None = None


class _Label(msgspec.Struct):
    name: str


class _Ref(msgspec.Struct):
    ref: str
    sha: str
    repo: _Named | None = None


class _PullRequest(msgspec.Struct):
    head: _Ref
    base: _Ref
    title: str | None = None
    draft: bool | None = None
    merged: bool | None = None
    state: str | None = None
    updated_at: msgspec.Raw = ABSENT
    labels: list[_Label] | None = None
    user: _User | None = None


class _PullRequestEvent(msgspec.Struct):
    action: str
    number: Number
    pull_request: _PullRequest
    repository: _Repository
    before: str | None = None
    sender: _User | None = None


_push = msgspec.json.Decoder(_Push)
_commits = msgspec.json.Decoder(list[CommitFiles] | None)
_pull_request = msgspec.json.Decoder(_PullRequestEvent)


class GitHub:
    """X-Hub-Signature-256 over the raw body; JSON or form bodies."""

    name: ClassVar[str] = "github"
    keeps_delivery_id: ClassVar[bool] = True

    def __init__(
        self, secrets: Sequence[str], signing_tokens: Sequence[str] = (), tolerance: float = 300
    ) -> None:
        """``tolerance`` is not used: GitHub signs no time. Raises ValueError without a secret."""
        if not secrets or signing_tokens:
            raise ValueError("github needs secrets, and nothing else")
        self._secrets = checked_secrets(secrets)
        self._keys = HmacKeys(self._secrets)

    def require(self, headers: Headers) -> None:
        """See Provider.require."""
        _signature(headers)

    def verify(self, headers: Headers, body: bytes, now: float) -> str:
        """See Provider.verify. SHA-1, which GitHub still sends beside it, is never enough."""
        sent = _signature(headers).removeprefix("sha256=")
        signature = self._keys.vouch([from_hex(sent)], body)
        if not signature:
            raise Unauthorized("no configured secret made this signature")
        return signature.hex()[:FINGERPRINT_LENGTH]

    def delivery_id(self, headers: Headers) -> str:
        """X-GitHub-Delivery, which stays the same when a delivery is sent again."""
        return headers.get("X-GitHub-Delivery", "")

    def parse(
        self, headers: Headers, body: bytes, reads_files: ReadsFiles = always
    ) -> Event | Ignored:
        """See Provider.parse."""
        name = headers.get("X-GitHub-Event", "")
        body = unwrap(headers.get("Content-Type", ""), body)
        match name:
            case "push":
                return _translate_push(decode(_push, body), reads_files)
            case "pull_request":
                return _translate_pull_request(decode(_pull_request, body))
            case "ping":
                return Ignored("ping: the webhook is set up")
            case "create" | "delete":
                return Ignored(f"{name} events are ignored: the push event says the same")
            case "":
                raise Malformed("X-GitHub-Event is missing")
            case _:
                return Ignored(f"{name[:64]} events never deploy")

    def sign(self, body: bytes, kind: str, delivery_id: str, now: float) -> dict[str, str]:
        """See Provider.sign."""
        return {
            "Content-Type": "application/json",
            "X-GitHub-Event": "pull_request" if kind == "pull_request" else "push",
            "X-GitHub-Delivery": delivery_id,
            "X-Hub-Signature-256": f"sha256={hmac.digest(self._secrets[0], body, 'sha256').hex()}",
        }


def _signature(headers: Headers) -> str:
    sent = headers.get("X-Hub-Signature-256")
    if sent is not None:
        return sent
    if "X-Hub-Signature" in headers:
        raise Unauthorized("only a SHA-1 signature was sent; SHA-256 is required")
    raise Unauthorized("X-Hub-Signature-256 is missing: the webhook has no secret set")


def _translate_push(push: _Push, reads_files: ReadsFiles) -> Push:
    repo = push.repository.full_name
    files: tuple[str, ...] = ()
    complete = False
    created = bool(push.created) or is_no_commit(push.before)
    deleted = bool(push.deleted) or is_no_commit(push.after)
    forced = bool(push.forced)
    if reads_files(repo):
        commits = decode(_commits, push.commits) or []
        files, listed = changed_files(commits)
        # A created or forced ref differs from what was deployed by more than the commits listed,
        # and where none is listed, a ref was moved to a commit that is known elsewhere already.
        complete = listed and 0 < len(commits) < MAX_COMMITS and not (created or forced or deleted)
    head = push.head_commit
    pushed_at = read_clock(push.repository.pushed_at)
    return Push(
        repo=repo,
        ref=push.ref,
        before=push.before,
        after=push.after,
        created=created,
        deleted=deleted,
        forced=forced,
        files=files,
        files_complete=complete,
        message=head_message(head),
        author=person(head.author) if head else Person(),
        sender=(push.sender.login if push.sender else None) or "",
        repo_id=read_id(push.repository.id),
        changed_at=pushed_at,
        own_clock=pushed_at is not None,
    )


def _translate_pull_request(event: _PullRequestEvent) -> PullRequest | Ignored:
    if event.action not in _ACTIONS:
        return Ignored(f"pull_request action {event.action[:64]} never deploys")
    pull = event.pull_request
    base_repo = event.repository.full_name
    head_repo = pull.head.repo.full_name if pull.head.repo else ""
    updated_at = read_time_text(pull.updated_at)
    return PullRequest(
        repo=base_repo,
        number=event.number,
        action=cast(Action, event.action),
        head_sha=pull.head.sha,
        head_ref=pull.head.ref,
        head_repo=head_repo,
        base_ref=pull.base.ref,
        title=(pull.title or "")[:512],
        draft=bool(pull.draft),
        fork=head_repo.lower() != base_repo.lower(),
        merged=bool(pull.merged),
        closed=pull.state == "closed",
        labels=tuple(label.name for label in pull.labels or ()),
        author=Person(login=(pull.user.login if pull.user else None) or ""),
        sender=(event.sender.login if event.sender else None) or "",
        updated_at=updated_at,
        repo_id=read_id(event.repository.id),
        before_sha=commit_or_nothing(event.before) if event.action == "synchronize" else "",
        changed_at=parse_timestamp(updated_at),
    )
