"""What the lists of deliveries and deploys are searched for, as a query string says it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from config.patterns import Flavour, PatternSet
from relay.console.words import PLURALS, branch
from relay.filtering import Filter, since
from relay.reading import Record, epoch
from relay.statuses import STATUSES, Kind

MOST_TEXT = 400
"""Characters of one field of the search."""

_TOLD_BY_EVENT = frozenset({"succeeded", "superseded", "cancelled", "stopped", "failed"})
"""Statuses of deploys that an event of the audit has the name of."""

_SHA = re.compile(r"[0-9a-f]{1,64}")


class Asked(NamedTuple):
    """The fields of the search; what is empty filters nothing."""

    repo: str = ""
    branch: str = ""
    sha: str = ""
    author: str = ""
    route: str = ""
    target: str = ""
    source: str = ""
    status: str = ""
    since: str = ""
    cursor: str = ""

    @property
    def searches(self) -> bool:
        """Whether anything is looked for, and not all of them."""
        return any(self._replace(cursor=""))

    def link(self, kind: Kind, **changed: str) -> str:
        """The path of the list with this search."""
        query = self.query(**changed)
        return f"/{PLURALS[kind]}" + (f"?{query}" if query else "")

    def history(self, kind: Kind) -> str:
        """The path of what the history has of such; it knows neither branch nor author."""
        event = self.status if kind == "deploy" and self.status in _TOLD_BY_EVENT else "*"
        fields = {
            "event": f"{kind}.{event}",
            "since": self.since,
            "repo": self.repo,
            "sha": self.sha,
            "target": self.target if kind == "deploy" else "",
            "source": self.source if kind == "delivery" else "",
        }
        return "/history?" + urlencode({name: value for name, value in fields.items() if value})

    def query(self, **changed: str) -> str:
        fields = {**self._asdict(), **changed}
        return urlencode({name: value for name, value in fields.items() if value})


def asked(query: Mapping[str, str]) -> Asked:
    """The search of a request; fields that there are not are left out."""
    return Asked(**{name: query.get(name, "").strip()[:MOST_TEXT] for name in Asked._fields})


def filter_of(kind: Kind, search: Asked) -> Filter:
    """Raises ValueError with a sentence for people."""
    if search.status and search.status not in STATUSES:
        raise ValueError(f"there is no status {search.status}")
    sha = beginning_of_commit(search.sha)
    name = search.source if kind == "delivery" else search.target
    return Filter(
        statuses=frozenset({search.status} if search.status else ()),
        repos=globs(_given(search.repo), ignore_case=True),
        names=frozenset({name} if name else ()),
        since=since(search.since),
        routes=frozenset({search.route} if search.route and kind == "deploy" else ()),
        sha=sha,
        author=search.author,
        branches=globs(_given(search.branch)),
        before=search.cursor,
    )


def is_wanted(kind: Kind, wanted: Filter, record: Record) -> bool:
    """Whether a list with this filter has the record, as far as a record tells: not its author."""
    name = record.source if kind == "delivery" else record.target
    return (
        (not wanted.statuses or record.status in wanted.statuses)
        and (not wanted.names or name in wanted.names)
        and (not wanted.routes or record.route in wanted.routes)
        and (wanted.repos is None or wanted.repos.matches(record.repo))
        and (wanted.branches is None or wanted.branches.matches(branch(record.ref)))
        and record.sha.startswith(wanted.sha)
        and epoch(record.created_at) >= wanted.since
    )


def beginning_of_commit(text: str) -> str:
    """The digits that a commit begins with; nothing of nothing. Raises ValueError with a sentence
    for people."""
    sha = text.lower()
    if sha and not _SHA.fullmatch(sha):
        raise ValueError("a commit is searched for by the digits that it begins with")
    return sha


def globs(
    patterns: Sequence[str], flavour: Flavour = "path", *, ignore_case: bool = False
) -> PatternSet | None:
    """What is searched for by names and globs. Raises ValueError with a sentence for people."""
    # A glob takes no longer than its text, a regular expression may take for ever, and who looks
    # need not be the operator.
    if any(pattern.removeprefix("!").startswith("re:") for pattern in patterns):
        raise ValueError("write a glob, such as acme/*, not a regular expression")
    return PatternSet(patterns, flavour, ignore_case=ignore_case) if patterns else None


def _given(text: str) -> Sequence[str]:
    return [text] if text else []
