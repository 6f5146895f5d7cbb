"""relay.yaml and the files of its secrets, read again while the process runs.

What a process has made of relay.yaml is exchanged as a whole, or not at all: a file with mistakes
is refused and the former one stays. Files are compared by what stat(2) says of them, which sees a
file that was written over as well as one that was put in its place and a link that was turned, as
editors and Kubernetes do.
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
    """What a process has made of relay.yaml: ``current``. Whoever works with it takes it once for
    each request or job, which then ends with what it began with."""

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
        self._seen = origin.stamps
        self._process = process
        self._secrets_of = secrets_of
        self._make = make
        self._changing: Stamps | None = None
        self._told = False
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
        """Have relay.yaml read now, whether it looks changed or not."""
        self._hurry.set()

    async def catch_up(self, version: str, at: float) -> T:
        """``current``, after reading relay.yaml if need be in the version that another process had
        at a time. Without it, what a receiver accepted for the sake of a new route could reach a
        worker that has not seen that route yet."""
        if self._lacks(version, at):
            async with self._one_at_a_time:
                if self._lacks(version, at):
                    await self._look(version=version)
        return self.current

    async def is_current(self) -> bool:
        """Return whether ``current`` is what the files say now: they have not changed since they
        were read, nor were they refused."""
        async with self._one_at_a_time:
            return self._used == self._seen == await asyncio.to_thread(_stamps, self._seen)

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
        now = await asyncio.to_thread(_stamps, self._seen)
        if hurried:
            await self._read()
        elif now == self._seen:
            self._changing = None
            self._up_to_date = looked
        elif version:
            await self._read(version)
        elif now == self._changing:
            await self._read()
        else:
            # Half a file may well be valid. It is read when it has stayed the same for a while.
            if self._changing is not None and not self._told:
                self._told = True
                self._refuse(
                    [self._problem("it keeps changing, and is read when it has stopped to")]
                )
            self._changing = now

    async def _read(self, version: str = "") -> None:
        """Exchange ``current`` for what the files say now; with ``version`` only if that is it."""
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
        changed = [path for path, found in stamps.items() if self._used.get(path) != found]
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
        self._seen, self._changing, self._told = stamps, None, False
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
