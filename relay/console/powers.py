"""What the console can do that is the workers'; the roof passes it in."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import NamedTuple

from redis.asyncio import Redis

from config.model import Target
from config.settings import Settings
from relay.overview import Standing
from relay.replays import Done, Wish


class Powers(NamedTuple):
    """The last three block, so that they are called in a thread; they raise StoreUnavailable."""

    replay_deploys: Callable[[Redis, Settings, Sequence[Wish]], Awaitable[list[Done]]]
    """Raises ConfigError and redis.exceptions.RedisError."""
    targets: Callable[[Mapping[str, Target]], Sequence[Standing]]
    """How these targets stand."""
    pause: Callable[[str], bool]
    """False if the target was paused already."""
    resume: Callable[[str], bool]
    """False if the target was not paused."""
