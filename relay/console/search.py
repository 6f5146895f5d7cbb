"""The search of the lists of deliveries and deploys, as a query string says it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import urlencode

from config.patterns import Flavour, PatternSet
from relay.console.words import PLURALS, epoch
from relay.events.deploy_life import STATUSES
from relay.ledger.filters import Filter, since
from relay.ledger.records import DELIVERY_STATUSES, VERDICTS, Record, RecordKind

MOST_TEXT = 400
"""Characters of one field of the search."""

STATUSES_OF: Mapping[RecordKind, Sequence[str]] = {
    "delivery": DELIVERY_STATUSES,
    "deploy": STATUSES,
}

_SHA = re.compile(r"[0-9a-f]{1,64}")


class Search(NamedTuple):
    """The fields of the search; an empty one filters nothing."""

    repo: str = ""
    branch: str = ""
    sha: str = ""
    author: str = ""
    words: str = ""
    route: str = ""
    target: str = ""
    source: str = ""
    status: str = ""
    verdict: str = ""
    attention: str = ""
    """``yes``: only deploys that need attention."""
    since: str = ""
    until: str = ""
    cursor: str = ""

    @property
    def is_search(self) -> bool:
        """Whether any field filters."""
        return any(self._replace(cursor=""))

    def link(self, kind: RecordKind, **changed: str) -> str:
        """Return the path of the list with this search."""
        query = self.query(**changed)
        return f"/{PLURALS[kind]}" + (f"?{query}" if query else "")

    def query(self, **changed: str) -> str:
        """Return the search as a query string."""
        fields = {**self._asdict(), **changed}
        return urlencode({name: value for name, value in fields.items() if value})


def read_search(query: Mapping[str, str]) -> Search:
    """Return the search of a request; fields that there are not are left out."""
    return Search(**{name: query.get(name, "").strip()[:MOST_TEXT] for name in Search._fields})


def filter_of(kind: RecordKind, search: Search) -> Filter:
    """Return the filter of a search. Raises ValueError with a sentence for people."""
    if search.status and search.status not in STATUSES_OF[kind]:
        raise ValueError(f"there is no status {search.status}")
    if search.verdict and search.verdict not in VERDICTS:
        raise ValueError(f"there is no verdict {search.verdict}")
    is_deploy = kind == "deploy"
    return Filter(
        statuses=_one(search.status),
        sources=_one(search.source),
        targets=_one(search.target if is_deploy else ""),
        routes=_one(search.route if is_deploy else ""),
        verdicts=_one(search.verdict),
        repos=globs(_given(search.repo), ignore_case=True),
        branches=globs(_given(search.branch)),
        sha=beginning_of_commit(search.sha),
        author=search.author,
        words=search.words,
        since=since(search.since),
        until=since(search.until),
        attention=is_deploy and bool(search.attention),
    )


def is_in_list(chosen: Filter, record: Record) -> bool:
    """Return whether a list with this filter has the record, as far as a record tells: it does not
    tell all names of the author and all words of the message."""
    created_at = epoch(record.created_at)
    return (
        (not chosen.statuses or record.status in chosen.statuses)
        and (not chosen.sources or record.source in chosen.sources)
        and (not chosen.targets or record.target in chosen.targets)
        and (not chosen.routes or record.route in chosen.routes)
        and (not chosen.verdicts or record.verdict in chosen.verdicts)
        and (chosen.repos is None or chosen.repos.matches(record.repo))
        and (chosen.branches is None or chosen.branches.matches(record.branch))
        and record.sha.startswith(chosen.sha)
        and created_at >= chosen.since
        and (not chosen.until or created_at < chosen.until)
    )


def beginning_of_commit(text: str) -> str:
    """Return the digits that a commit begins with; nothing of nothing. Raises ValueError with a
    sentence for people."""
    sha = text.lower()
    if sha and not _SHA.fullmatch(sha):
        raise ValueError("a commit is searched for by the digits that it begins with")
    return sha


def globs(
    patterns: Sequence[str], flavour: Flavour = "path", *, ignore_case: bool = False
) -> PatternSet | None:
    """Return names and globs as patterns. Raises ValueError with a sentence for people."""
    # A glob takes no longer than its text. A regular expression may take for ever, and a viewer
    # is not to stop the console.
    if any(pattern.removeprefix("!").startswith("re:") for pattern in patterns):
        raise ValueError("write a glob, such as acme/*, not a regular expression")
    return PatternSet(patterns, flavour, ignore_case=ignore_case) if patterns else None


def _one(text: str) -> frozenset[str]:
    return frozenset({text} if text else ())


def _given(text: str) -> Sequence[str]:
    return [text] if text else []
