"""Reads relay.yaml and the files of its secrets again while the process runs.

A file with mistakes is refused as a whole, and the former one stays. Files are compared by stat(2),
which notices a file that was overwritten or replaced and a link that was changed, as editors and
Kubernetes do.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from config.errors import ConfigError, ConfigProblem
from config.loading import Loaded, load
from config.origin import Origin, Stamps, stamp
from config.secret_places import Section, secret_values
from config.settings import Settings
from relay import audit
from relay.audit import log
from relay.notices import rehearse_notices
from relay.planning import rehearse

MOST_PROBLEMS = 10
"""Mistakes of a refused file that the audit lists; it always has their number."""

MOST_FILES = 10
"""Changed files that the audit lists."""

LONGEST = 300
"""Characters of a mistake or a file's name in the audit."""

T = TypeVar("T")

_diagnostics = logging.getLogger("relay.reloading")


class _Read(NamedTuple, Generic[T]):
    made: T
    version: str
    secrets: frozenset[str]
    sources: int
    targets: int
    routes: int


class Reloading(Generic[T]):
    """Keeps ``current``, which a process makes from relay.yaml, up to date. A request or job takes
    it once, and ends with the version that it began with."""

    def __init__(
        self,
        settings: Settings,
        current: T,
        origin: Origin,
        *,
        process: Literal["receiver", "worker", "console"],
        secrets_of: Collection[Section],
        make: Callable[[Loaded], T],
    ) -> None:
        """``current`` was made of what ``origin`` says. ``make`` is called in a thread, and may
        raise ConfigError."""
        self.current = current
        self._settings = settings
        self._version = origin.version
        self._used = origin.stamps
        self._stamps = origin.stamps
        self._process = process
        self._secrets_of = secrets_of
        self._make = make
        self._changing: Stamps | None = None
        self._has_said_so = False
        self._up_to_date = time.time()
        self._hurry = asyncio.Event()
        self._one_at_a_time = asyncio.Lock()

    async def run(self) -> None:
        """Look at the files every ``reload_interval`` seconds, and when ``hurry`` was called."""
        while True:
            hurried = await self._wait()
            async with self._one_at_a_time:
                await self._look(hurried=hurried)

    def hurry(self) -> None:
        """Read relay.yaml soon, whether it has changed or not."""
        self._hurry.set()

    async def catch_up(self, version: str, at: float) -> T:
        """Return ``current``, after reading relay.yaml again if another process had ``version``
        when this one did not. Otherwise a webhook that a receiver accepted for a new route
        could reach a worker without this route."""
        if self._lacks(version, at):
            async with self._one_at_a_time:
                if self._lacks(version, at):
                    await self._look(version=version)
        return self.current

    async def is_current(self) -> bool:
        """Return whether ``current`` is made from the files as they are now: they have not changed
        since they were read, and were not refused."""
        async with self._one_at_a_time:
            return self._used == self._stamps == await asyncio.to_thread(_stamps, self._stamps)

    def _lacks(self, version: str, at: float) -> bool:
        return version not in ("", self._version) and self._up_to_date < at

    async def _wait(self) -> bool:
        try:
            async with asyncio.timeout(self._settings.reload_interval or None):
                await self._hurry.wait()
        except TimeoutError:
            return False
        self._hurry.clear()
        return True

    async def _look(self, *, hurried: bool = False, version: str = "") -> None:
        looked = time.time()
        now = await asyncio.to_thread(_stamps, self._stamps)
        if hurried:
            await self._read()
        elif now == self._stamps:
            self._changing = None
            self._up_to_date = looked
        elif version:
            await self._read(version)
        elif now == self._changing:
            await self._read()
        else:
            # Half a file may well be valid. It is read when it has stayed the same for a while.
            if self._changing is not None and not self._has_said_so:
                self._has_said_so = True
                self._refuse(
                    [self._problem("it keeps changing: it is read when it stays the same")]
                )
            self._changing = now

    async def _read(self, version: str = "") -> None:
        """Make ``current`` from the current files; with ``version`` only if they have it."""
        stamps: Stamps = {}
        began = time.time()
        try:
            read = await asyncio.to_thread(self._read_all, stamps)
        except ConfigError as error:
            self._settle(stamps, began)
            self._refuse(error.problems)
            return
        except Exception:
            _diagnostics.exception("reading relay.yaml failed")
            self._settle(stamps, began)
            self._refuse([self._problem("an error that was not foreseen, see the diagnostics")])
            return
        if version and read.version != version:
            self._up_to_date = began
            return
        changed = [path for path, state in stamps.items() if self._used.get(path) != state]
        self._settle(stamps, began)
        self._used, self._version = stamps, read.version
        audit.exchange_secrets(read.secrets | self._settings.secret_values())
        self.current = read.made
        log.info(
            "config.reloaded",
            process=self._process,
            config=read.version,
            sources=read.sources,
            targets=read.targets,
            routes=read.routes,
            changed=[_cut(str(path)) for path in changed[:MOST_FILES]],
        )

    def _settle(self, stamps: Stamps, at: float) -> None:
        self._stamps, self._changing, self._has_said_so = stamps, None, False
        self._up_to_date = at

    def _read_all(self, stamps: Stamps) -> _Read[T]:
        loaded = load(self._settings.config, secrets_of=self._secrets_of, stamps=stamps)
        problems = rehearse(loaded) + rehearse_notices(loaded)
        if problems:
            raise ConfigError(problems)
        made = self._make(loaded)
        if _stamps(stamps) != stamps:
            raise ConfigError([self._problem("it, or a secret's file, changed while it was read")])
        config = loaded.config
        return _Read(
            made,
            loaded.origin.version,
            secret_values(config),
            len(config.sources),
            len(config.targets),
            len(config.routes),
        )

    def _problem(self, message: str) -> ConfigProblem:
        return ConfigProblem(str(self._settings.config), 0, 0, "", message)

    def _refuse(self, problems: Sequence[ConfigProblem]) -> None:
        log.error(
            "config.refused",
            process=self._process,
            config=self._version,
            problems=[_cut(str(problem)) for problem in problems[:MOST_PROBLEMS]],
            number=len(problems),
        )


def _stamps(files: Stamps) -> Stamps:
    return {path: stamp(path) for path in files}


def _cut(text: str) -> str:
    # YAML can write characters that UTF-8 cannot.
    return text[:LONGEST].encode(errors="replace").decode()
