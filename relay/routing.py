"""Matches events against routes, with the reason of each decision. Pure.

Routes are indexed by repository, so that an event costs no more for the routes of other
repositories. One function judges a route, for routing and for explaining alike.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from config.collector import collector_paused
from config.model import On, Route
from config.patterns import PatternSet, is_literal
from relay.events.event import Event, PullRequest, Push

REPOSITORIES_REMEMBERED = 8_192
"""Repositories whose routes are not looked up again; bounds memory, not the file."""

PATTERNS_REMEMBERED = 8_192
"""Lists of patterns of which routes with the same list share what is compiled."""

SKIP_MARK = "[skip deploy]"
"""In a head commit's message, or in a pull request's title: do not deploy this."""


@dataclass(frozen=True, slots=True)
class RouteDecision:
    """The decision of one route on one event."""

    route: Route
    matched: bool
    reason: str
    paths_unknown: bool = False
    """The path filter let the event through because the list of changed files is incomplete."""


class Router:
    """The routes of a relay.yaml, compiled."""

    def __init__(self, routes: Iterable[Route]) -> None:
        with collector_paused():
            self._routes = [_Compiled(position, route) for position, route in enumerate(routes)]
        self._by_repo: dict[str, list[_Compiled]] = {}
        self._by_pattern: list[_Compiled] = []
        for compiled in self._routes:
            if compiled.named:
                for repo in compiled.named:
                    self._by_repo.setdefault(repo, []).append(compiled)
            else:
                self._by_pattern.append(compiled)

        # The same few thousand repositories push over and over.
        self._by_name: dict[str, tuple[_Compiled, ...]] = {}

    def __len__(self) -> int:
        return len(self._routes)

    def _about(self, repo: str) -> tuple[_Compiled, ...]:
        """The routes of a repository, in the order of the file."""
        routes = self._by_name.get(repo)
        if routes is None:
            if len(self._by_name) >= REPOSITORIES_REMEMBERED:
                self._by_name.clear()
            routes = self._by_name[repo] = self._find(repo)
        return routes

    def _find(self, repo: str) -> tuple[_Compiled, ...]:
        named = self._by_repo.get(repo.lower(), ())
        # A repository matches by pattern without regard to case, as git servers do.
        other = [route for route in self._by_pattern if route.is_about(repo)]
        return tuple(sorted((*named, *other), key=lambda route: route.position))

    def candidates(self, event: Event, source: str) -> list[RouteDecision]:
        """Return the decisions of the routes of the event's repository, in file order."""
        return [route.decide(event, source) for route in self._about(event.repo)]

    def wants(self, event: Event, source: str) -> bool:
        """Return whether any route matches the event: as ``candidates``, without reasons."""
        return any(route.takes(event, source) for route in self._about(event.repo))

    def reads_files(self, repo: str) -> bool:
        """Return whether a route of this repository has a path filter."""
        return any(route.paths is not None for route in self._about(repo))

    def conditions(self, event: Event, source: str) -> dict[str, bool]:
        """Return for each target that wants pull requests of this repository by labels, draft or
        base whether these conditions hold for the event; empty for other events.

        What an event is about besides (actions, branches, authors) does not count: a deploy is
        wanted again when its conditions became true again, whatever event told that.
        """
        if not isinstance(event, PullRequest):
            return {}
        holds: dict[str, bool] = {}
        for route in self._about(event.repo):
            if "pull_request" in route.on and route.is_for(source):
                does_hold = route.conditions_hold(event)
                for target in route.route.deploy:
                    holds[target] = holds.get(target, False) or does_hold
        return holds

    def decide(self, event: Event, source: str) -> list[RouteDecision]:
        """Return the decisions of all routes of the file, for an explanation."""
        return [
            route.decide(event, source)
            if route.is_about(event.repo)
            else RouteDecision(
                route.route, matched=False, reason=f"repo {event.repo} does not match {route.repo}"
            )
            for route in self._routes
        ]


class _Compiled:
    __slots__ = (
        "authors",
        "base_branches",
        "branches",
        "labels",
        "messages",
        "named",
        "on",
        "paths",
        "position",
        "repo",
        "route",
        "sources",
        "tags",
    )

    def __init__(self, position: int, route: Route) -> None:
        self.position = position
        self.route = route
        # Kept here too: of thousands of routes, what lies apart is not in the processor's cache.
        self.on = _same(route.on)
        self.sources = route.sources
        self.repo = _repositories(route.repo)
        literal = all(is_literal(pattern) for pattern in route.repo)
        self.named = frozenset(pattern.lower() for pattern in route.repo if literal)
        self.branches = _paths(route.branches)
        self.base_branches = _paths(route.base_branches)
        self.tags = _paths(route.tags)
        self.paths = _paths(route.paths)
        self.labels = _texts(route.labels)
        self.authors = _texts(route.authors)
        self.messages = _texts(route.messages)

    def is_about(self, repo: str) -> bool:
        """Whether the route is about this repository; the same answer as from the index."""
        return repo.lower() in self.named if self.named else self.repo.matches(repo)

    def is_for(self, source: str) -> bool:
        """Whether the route listens to this source."""
        return self.sources is None or source in self.sources

    def conditions_hold(self, event: PullRequest) -> bool:
        """Whether labels, draft and base are as the route wants them; they change with time."""
        return (
            (self.route.drafts or not event.draft)
            and (self.base_branches is None or self.base_branches.matches(event.base_ref))
            and (self.labels is None or _any(self.labels, event.labels))
        )

    def takes(self, event: Event, source: str) -> bool:
        """Whether ``decide`` would say that it matches."""
        return not self._refusal(event, source) and self._paths_match(event)[0]

    def decide(self, event: Event, source: str) -> RouteDecision:
        """Judge an event of this route's repository, cheapest conditions first."""
        reason = self._refusal(event, source)
        if reason:
            return RouteDecision(self.route, matched=False, reason=reason)
        matches, unknown = self._paths_match(event)
        if not matches:
            return RouteDecision(
                self.route, matched=False, reason=f"no changed file matches paths: {self.paths}"
            )
        reason = "all conditions hold"
        if unknown:
            reason += "; the list of changed files is incomplete, so paths let it through"
        return RouteDecision(self.route, matched=True, reason=reason, paths_unknown=unknown)

    def _refusal(self, event: Event, source: str) -> str:
        if event.kind not in self.on:
            return f"on is {', '.join(self.on)}, this is a {event.kind}"
        if self.sources is not None and source not in self.sources:
            return f"source {source!r} is not one of {', '.join(self.sources)}"
        if isinstance(event, PullRequest):
            reason = self._refusal_of_pull_request(event)
        else:
            reason = self._refusal_of_push(event)
        if not reason and self.authors is not None and not _any(self.authors, event.author.names()):
            return f"author {' / '.join(event.author.names())!r} does not match {self.authors}"
        return reason

    def _refusal_of_push(self, event: Push) -> str:
        if event.branch:
            if event.deleted and self.branches is None and self.tags is not None:
                return "a deleted branch, and the route is about tags"
            if self.branches is not None and not self.branches.matches(event.branch):
                return f"branch {event.branch!r} does not match branches: {self.branches}"
        elif event.tag:
            if event.deleted and self.tags is None and self.branches is not None:
                return "a deleted tag, and the route is about branches"
            if self.tags is not None and not self.tags.matches(event.tag):
                return f"tag {event.tag!r} does not match tags: {self.tags}"
        elif self.branches is not None or self.tags is not None:
            return f"{event.ref!r} is neither a branch nor a tag, and the route is about those"
        if event.deleted:
            return ""
        if SKIP_MARK in event.message.lower():
            return f"the head commit says {SKIP_MARK}"
        if self.messages is not None and not self.messages.matches(event.message):
            return f"the head commit's message does not match messages: {self.messages}"
        return ""

    def _refusal_of_pull_request(self, event: PullRequest) -> str:
        route = self.route
        if event.action not in route.actions:
            return f"action {event.action} is not one of {', '.join(route.actions)}"
        if event.fork and not route.forks:
            return "from a fork, and the route does not say forks: true"
        if event.draft and not route.drafts:
            return "a draft, and the route does not say drafts: true"
        if self.base_branches is not None and not self.base_branches.matches(event.base_ref):
            return f"base {event.base_ref!r} does not match base_branches: {self.base_branches}"
        if self.branches is not None and not self.branches.matches(event.head_ref):
            return f"branch {event.head_ref!r} does not match branches: {self.branches}"
        if self.labels is not None and not _any(self.labels, event.labels):
            return f"labels {', '.join(event.labels) or '(none)'} do not match {self.labels}"
        if SKIP_MARK in event.title.lower():
            return f"the title says {SKIP_MARK}"
        return ""

    def _paths_match(self, event: Event) -> tuple[bool, bool]:
        """Whether the path filter lets the event through, and whether only for lack of a list."""
        if self.paths is None or event.kind == "delete":
            return True, False
        if isinstance(event, PullRequest):
            return True, True
        if any(map(self.paths.matches, event.files)):
            return True, False
        return (not event.files_complete,) * 2


# Thousands of routes say the same few things.
@functools.lru_cache(maxsize=PATTERNS_REMEMBERED)
def _same(kinds: tuple[On, ...]) -> tuple[On, ...]:
    return kinds


@functools.lru_cache(maxsize=PATTERNS_REMEMBERED)
def _repositories(patterns: tuple[str, ...]) -> PatternSet:
    return PatternSet(patterns, "path", ignore_case=True)


@functools.lru_cache(maxsize=PATTERNS_REMEMBERED)
def _paths(patterns: tuple[str, ...] | None) -> PatternSet | None:
    return None if patterns is None else PatternSet(patterns, "path")


@functools.lru_cache(maxsize=PATTERNS_REMEMBERED)
def _texts(patterns: tuple[str, ...] | None) -> PatternSet | None:
    return None if patterns is None else PatternSet(patterns, "text")


def _any(patterns: PatternSet, values: Sequence[str]) -> bool:
    """Return whether a value matches and none is excluded; without values, whether the patterns
    include nothing."""
    if any(patterns.excludes(value) for value in values):
        return False
    return not patterns.includes_anything or any(map(patterns.matches, values))
