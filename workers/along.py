"""What is written with the end of a job's run, in the same step: it costs no round trip, and what
Redis refuses of it changes nothing of the end itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

Command = tuple[str | bytes | int, ...]


class Along:
    """Commands of the jobs that run in this process."""

    def __init__(self) -> None:
        self._commands: defaultdict[str, list[Command]] = defaultdict(list)

    @property
    def jobs(self) -> Collection[str]:
        """Ids of the jobs for which something waits."""
        return list(self._commands)

    def add(self, job: str, *commands: Command) -> None:
        """Have commands written when this run of the job ends."""
        self._commands[job] += commands

    def take(self, job: str) -> list[Command]:
        """What waits for the end of a job, which is then no longer kept here."""
        return self._commands.pop(job, [])

    def write(self, pipe: Any, job: str) -> None:
        """Put it into a pipeline."""
        for command in self.take(job):
            pipe.execute_command(*command)
