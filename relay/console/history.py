"""Questions to the audit files: what Redis does not have any more. They are read in threads, few at
a time, so that the pages of others do not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from relay.audit_history import Answer, Bounds, ask, tell
from relay.audit_query import Wanted
from relay.errors import AuditUnreadable, NoAuditFile, Refused
from relay.statuses import Kind

AT_ONCE = 2
"""Questions that are read for; others wait."""

BOUNDS = Bounds(64 * 1024 * 1024, 5)
"""Of one question about any lines, most of which may have to be parsed."""

BOUNDS_OF_ONE = Bounds(1024 * 1024 * 1024, 5)
"""Of one about the lines of a delivery or deploy, whose id is merely looked for."""

PATIENCE = 15
"""Seconds for which a question waits for its turn and its answer."""


class History:
    """The audit files as the console asks them. Every question raises NoAuditFile, AuditUnreadable,
    and Refused where its cursor is none."""

    def __init__(self, path: Path | None) -> None:
        self._path = path.absolute() if path else None
        self._threads = ThreadPoolExecutor(AT_ONCE, "history")

    @property
    def is_kept(self) -> bool:
        """Whether there is an audit file at all."""
        return self._path is not None

    async def ask(self, wanted: Wanted, limit: int, cursor: str) -> Answer:
        """The newest entries that are wanted, the newest first."""
        return await self._read(lambda path: ask(path, wanted, limit, BOUNDS, cursor))

    async def tell(self, kind: Kind, id_: str, cursor: str) -> Answer:
        """What there is of one delivery or deploy, the oldest first."""
        return await self._read(lambda path: tell(path, kind, id_, BOUNDS_OF_ONE, cursor))

    def close(self) -> None:
        """Take no more questions."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _read(self, question: Callable[[Path], Answer]) -> Answer:
        if self._path is None:
            raise NoAuditFile("no audit file is kept: set RELAY_AUDIT_FILE")
        # What is cancelled before its turn is not read for.
        answer = asyncio.wrap_future(self._threads.submit(question, self._path))
        try:
            async with asyncio.timeout(PATIENCE):
                return await answer
        except TimeoutError:
            raise AuditUnreadable("the audit files are busy: try again later") from None
        except OSError as error:
            raise AuditUnreadable(f"the audit files cannot be read ({error.strerror})") from None
        except ValueError as error:
            raise Refused(str(error)) from None
