"""The numbered migrations of each database: ``<database>/<number>_<name>.sql``."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple


class Migration(NamedTuple):
    """One step from the schema before to the next."""

    number: int
    name: str
    sql: str


def migrations(database: str) -> tuple[Migration, ...]:
    """Return the migrations of ``database`` in their order. Raises ValueError where a number is
    missing or occurs twice."""
    steps = []
    for file in (files("relay.ledger") / "migrations" / database).iterdir():
        if not file.name.endswith(".sql"):
            continue
        number, _, name = file.name.removesuffix(".sql").partition("_")
        steps.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    steps.sort()
    if [step.number for step in steps] != list(range(1, len(steps) + 1)):
        raise ValueError(f"the migrations of {database} are not numbered one by one")
    return tuple(steps)
