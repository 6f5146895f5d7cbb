"""Git servers of the first state machine: refs that move, and the webhooks that tell of it.

Plain Python; nothing of the project is imported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

OPENING = ("opened", "synchronize", "reopened", "labeled")
"""Actions of a pull request that its preview is called for."""

CLOCK_STEP = 7.0
"""Seconds between two changes of one ref at least: nearer ones cannot be told apart."""


@dataclass(frozen=True)
class Webhook:
    """One request. ``state`` is the true number of the state of the ref that it is about."""

    ref: Ref
    state: int
    action: str
    before: str
    after: str
    at: float
    labels: frozenset[str]
    guid: str
    body: bytes
    is_touch: bool = False

    @property
    def ends(self) -> bool:
        return self.action in ("delete", "closed")

    @property
    def value(self) -> str:
        """Where the ref stands after it."""
        if self.ref.kind == "pull":
            return f"{self.after} {'closed' if self.action == 'closed' else 'open'}"
        return "" if self.action == "delete" else self.after


@dataclass(eq=False)
class Ref:
    """A branch, tag or pull request, and its true history."""

    repo: str
    name: str
    kind: str
    """branch, tag or pull."""
    has_clock: bool
    """Its server tells when each change was made, so webhooks may come in any order."""
    hooks: int
    """Webhooks of each change."""
    head: str = ""
    is_open: bool = False
    """A pull request is open; the others exist where ``head`` is not empty."""
    state: int = 0
    commits: list[str] = field(default_factory=list)
    labels: frozenset[str] = frozenset()
    last_at: float = 0
    under_way: list[Webhook] = field(default_factory=list)
    """Webhooks that have not arrived yet, in the order in which they were sent."""
    arrived: list[Webhook] = field(default_factory=list)

    @property
    def exists(self) -> bool:
        return self.is_open if self.kind == "pull" else bool(self.head)


class GitServers:
    """All repositories of one example. Commits and webhooks are counted, so that none repeats."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._commits = 0
        self._requests = 0

    def ref(self, name: str, kind: str, *, has_clock: bool, hooks: int) -> Ref:
        server = "clocked" if has_clock else "linked"
        return Ref(f"{self.name}/{server}", name, kind, has_clock, hooks)

    def push(self, ref: Ref, at: float, commit: str = "") -> None:
        """Make the ref, or move it: to a new commit, or to an older one."""
        before = ref.head
        ref.head = commit or self._commit(ref)
        self._send(ref, at, "push" if before else "create", before, ref.head)

    def delete(self, ref: Ref, at: float) -> None:
        before, ref.head = ref.head, ""
        self._send(ref, at, "delete", before, "")

    def change_pull(self, ref: Ref, at: float, action: str) -> None:
        """``opened``, ``synchronize``, ``closed`` or ``reopened``."""
        before = ref.head
        if action in ("opened", "synchronize"):
            ref.head = self._commit(ref)
        ref.is_open = action != "closed"
        self._send(ref, at, action, before if action == "synchronize" else "", ref.head)

    def label(self, ref: Ref, at: float, label: str) -> None:
        """Add a label to a pull request, or take it away. Such a webhook is never late."""
        action = "unlabeled" if label in ref.labels else "labeled"
        ref.labels = ref.labels ^ {label}
        ref.last_at = max(at, ref.last_at + CLOCK_STEP)
        ref.under_way.append(self._webhook(ref, action, "", ref.head, is_touch=True))

    def again(self, webhook: Webhook, *, new_id: bool) -> Webhook:
        """The same request once more; some servers give it a new id."""
        if not new_id:
            return webhook
        self._requests += 1
        return Webhook(**{**webhook.__dict__, "guid": f"{self.name}-{self._requests}"})

    def _send(self, ref: Ref, at: float, action: str, before: str, after: str) -> None:
        ref.state += 1
        ref.last_at = max(at, ref.last_at + CLOCK_STEP)
        first = self._webhook(ref, action, before, after)
        ref.under_way.append(first)
        for hook in range(1, ref.hooks):
            # GitHub gives all hooks of one change the same id; their bodies differ.
            body = first.body + b" of hook %d" % hook
            ref.under_way.append(Webhook(**{**first.__dict__, "body": body}))

    def _webhook(
        self, ref: Ref, action: str, before: str, after: str, *, is_touch: bool = False
    ) -> Webhook:
        self._requests += 1
        return Webhook(
            ref=ref,
            state=ref.state,
            action=action,
            before=before,
            after=after,
            at=ref.last_at,
            labels=ref.labels,
            guid=f"{self.name}-{self._requests}",
            body=b"%s request %d" % (self.name.encode(), self._requests),
            is_touch=is_touch,
        )

    def _commit(self, ref: Ref) -> str:
        self._commits += 1
        commit = f"{self._commits:040x}"
        ref.commits.append(commit)
        return commit
