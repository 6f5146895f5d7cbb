"""Notices about deploys: their text, their notifiers and the calls that send them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote

import msgspec

from config.errors import ConfigProblem
from config.loading import Loaded
from config.model import NoticeKind, Notifier, Target
from config.patterns import PatternSet
from config.preset import presets
from relay.events.event import Event, PullRequest, Push
from relay.planning import Call, Recipe, Reveal, event_context, placeholder
from relay.templates import PlanError

MOST_NAME = 100
"""Characters of a name that somebody chose, in a message."""

MOST_REASON = 300
"""Characters of a reason."""

_SENTENCES: Mapping[NoticeKind, str] = {
    "failure": "Deploy failed",
    "recovery": "Deploy succeeded again after a failure",
    "held": "Deploy is uncertain, a person has to decide",
    "approval": "Deploy waits for approval",
}

_HTTP_BODY = {
    "text": "{{ notice.text }}",
    "kind": "{{ notice.kind }}",
    "reason": "{{ notice.reason }}",
    "more": "{{ notice.more }}",
    "link": "{{ notice.link }}",
    "deploy": "{{ notice.deploy }}",
    "target": "{{ notice.target }}",
    "route": "{{ route }}",
    "delivery": "{{ delivery.id }}",
    "repo": "{{ event.repo }}",
    "ref": "{{ event.ref }}",
    "sha": "{{ event.sha }}",
}


class Notice(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happened to a deploy, as it waits in the ledger to be sent. It holds no secret."""

    kind: NoticeKind
    deploy: str
    delivery: str
    source: str
    route: str
    target: str
    event: Event
    reason: str = ""


class Messenger:
    """A notifier of relay.yaml, compiled."""

    def __init__(self, notifier: Notifier) -> None:
        """Raises PlanError where a template is not well formed."""
        self.name = notifier.name
        self.rate = notifier.rate
        self.kinds = notifier.on
        self._targets = notifier.targets
        self._repos = PatternSet(notifier.repos, "path", ignore_case=True)
        self._is_slack = notifier.preset == "slack"
        body = {"text": "{{ notice.text }}"} if self._is_slack else notifier.json_body
        target = Target(
            preset="http",
            url=notifier.url,
            headers=notifier.headers,
            json_body=_HTTP_BODY if body is None else body,
        )
        self._recipe = Recipe(notifier.name, target, presets()["http"])

    def listens(self, target: str, repo: str) -> bool:
        """Return whether it gets notices of this repository and target."""
        return (self._targets is None or target in self._targets) and self._repos.matches(repo)

    def wants(self, kind: NoticeKind, target: str, repo: str) -> bool:
        """Return whether it gets this notice."""
        return kind in self.kinds and self.listens(target, repo)

    def call(
        self,
        notice: Notice,
        reveal: Reveal,
        *,
        console: str | None = None,
        more: Mapping[str, int] | None = None,
        told: bool = False,
    ) -> Call:
        """Return the call that sends a notice, and the numbers of ``more`` notices by kind.
        ``console`` is the base of the link to the deploy's page. ``told``: the notice was sent
        before, and only the others were not. Raises PlanError."""
        link = f"{console.rstrip('/')}/deploys/{quote(notice.deploy, safe='')}" if console else ""
        more = {kind: number for kind, number in (more or {}).items() if number > 0}
        lines = [] if told else [self._sentence(notice, link)]
        if more:
            parts = ", ".join(f"{kind} {number}" for kind, number in sorted(more.items()))
            lines.append(f"and {sum(more.values())} more: {parts}")
        context = {
            "event": event_context(notice.event),
            "notice": {
                "kind": notice.kind,
                "text": "\n".join(lines),
                "reason": notice.reason[:MOST_REASON],
                "target": notice.target,
                "deploy": notice.deploy,
                "link": link,
                "more": sum(more.values()),
            },
            "route": notice.route,
            "delivery": {"id": notice.delivery, "source": notice.source},
        }
        return self._recipe.render(context, reveal)

    def _sentence(self, notice: Notice, link: str) -> str:
        event = notice.event
        where = f"#{event.number}" if isinstance(event, PullRequest) else _short(event.ref)
        names = (notice.target, event.repo, where, event.sha[:12])
        target, repo, ref, sha = (self._name(name) for name in names)
        text = f"{_SENTENCES[notice.kind]}: {target}, {repo} {ref} {sha}"
        if notice.reason:
            text += f": {self._plain(notice.reason, MOST_REASON)}"
        if not link:
            return text
        # https://docs.slack.dev/messaging/formatting-message-text
        return f"{text} <{_escaped(link)}|open>" if self._is_slack else f"{text} {link}"

    def _name(self, text: str) -> str:
        """Return a name as code: people who may push chose it, so it must be no mention or link."""
        text = self._plain(text, MOST_NAME)
        return "`" + text.replace("`", "'") + "`" if self._is_slack else text

    def _plain(self, text: str, most: int) -> str:
        cut = text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"
        clean = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in cut)
        return _escaped(clean) if self._is_slack else clean


def messengers(loaded: Loaded) -> tuple[Messenger, ...]:
    """Return the notifiers of a relay.yaml. Raises PlanError."""
    return tuple(Messenger(notifier) for notifier in loaded.config.notify)


def rehearse_notices(loaded: Loaded) -> list[ConfigProblem]:
    """Make every call that could tell something, so that a template that cannot render is found
    before there is something to tell."""
    problems: list[ConfigProblem] = []
    for index, notifier in enumerate(loaded.config.notify):
        try:
            messenger = Messenger(notifier)
            for event in _EXAMPLES:
                notice = Notice("failure", "example", "example", "example", "r", "t", event)
                messenger.call(notice, placeholder)
        except PlanError as error:
            at = re.split(r"[.:\[]", str(error), maxsplit=1)[0]
            problems.append(loaded.places.problem(("notify", index, at), str(error)))
    return problems


_EXAMPLES: tuple[Event, ...] = (
    Push("example/example", "refs/heads/main", "1" * 40, "2" * 40),
    PullRequest("example/example", 1, "opened", "2" * 40, "topic", "example/example", "main"),
)


def _short(ref: str) -> str:
    return ref.removeprefix("refs/heads/").removeprefix("refs/tags/")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
