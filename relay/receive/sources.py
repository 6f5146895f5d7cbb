"""The sources of relay.yaml, ready to be listened to."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from config.model import Source
from config.patterns import PatternSet
from relay.http.limits import TokenBucket
from relay.providers import PROVIDERS
from relay.providers.provider import Provider
from relay.routing import REPOSITORIES_REMEMBERED


@dataclass(frozen=True, slots=True)
class ReadySource:
    """One source of relay.yaml, its secrets loaded."""

    name: str
    server: str
    """Name of the git server; sources of one server share the histories of refs."""
    provider: Provider
    speaks_for: Callable[[str], bool]
    """Whether the source may send events of a repository."""
    networks: Sequence[IPv4Network | IPv6Network] = ()
    """Where it sends from; empty for anywhere."""
    rate: TokenBucket | None = None
    """How much it may send."""


def ready_sources(sources: Mapping[str, Source]) -> dict[str, ReadySource]:
    """Return every source by its name. Their secrets must have been loaded."""
    return {
        name: ReadySource(
            name=name,
            server=source.server or name,
            provider=PROVIDERS[source.provider](
                secrets=[ref.reveal() for ref in source.secrets],
                signing_tokens=[ref.reveal() for ref in source.signing_tokens],
                tolerance=source.tolerance,
            ),
            # The same few thousand repositories send over and over.
            speaks_for=functools.lru_cache(maxsize=REPOSITORIES_REMEMBERED)(
                PatternSet(source.repos, "path", ignore_case=True).matches
            ),
            networks=source.networks,
            rate=TokenBucket(*source.rate) if source.rate is not None else None,
        )
        for name, source in sources.items()
    }
