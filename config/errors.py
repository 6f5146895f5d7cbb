"""The root of the error family, and the errors an operator's own files can cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RelayError(Exception):
    """Anything deploy-relay itself refuses or cannot do. Its text is safe to show and to log."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One mistake in an operator's file.

    ``line`` and ``column`` count from 1; 0 means that the mistake has no place in the file
    (the file is missing, an environment variable is not set).
    """

    file: str
    line: int
    column: int
    where: str
    message: str
    suggestion: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        where = f" {self.where}:" if self.where else ""
        hint = f" ({self.suggestion})" if self.suggestion else ""
        return f"{place}:{where} {self.message}{hint}"


class ConfigError(RelayError):
    """The settings or relay.yaml cannot be used; ``problems`` lists every mistake found."""

    def __init__(self, problems: Sequence[ConfigProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))
