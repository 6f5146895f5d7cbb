"""The policies of relay.yaml about targets, for claims."""

from __future__ import annotations

import os
from collections.abc import Mapping

from config.model import OnUncertain, Target
from relay.planning import Recipe

BEFORE_CALL = 5.0
"""Seconds that may pass between asking for a claim and its call; after them no call is made."""

AFTER_CALL = 10.0
"""Seconds that a claim holds beyond its call, for its outcome to be written."""

_FOR_TESTS = "RELAY_TEST_CLAIM_MARGIN"
"""Seconds in place of both, so that a test need not wait for so long."""


def margins() -> tuple[float, float]:
    """Return the seconds of a claim before its call and after it."""
    short = os.environ.get(_FOR_TESTS)
    return (float(short), float(short)) if short else (BEFORE_CALL, AFTER_CALL)


class TargetPolicies:
    """Answers relay.ledger.claims.Policies from a relay.yaml."""

    def __init__(self, targets: Mapping[str, Target], recipes: Mapping[str, Recipe]) -> None:
        self._targets = targets
        self._recipes = recipes
        self._margin = sum(margins())

    def target(self, name: str) -> Target | None:
        """Return the target of this name; None where relay.yaml no longer has it."""
        return self._targets.get(name)

    def on_uncertain(self, name: str, *, is_newest: bool) -> OnUncertain:
        """Return what follows an uncertain call to this target."""
        recipe = self._recipes.get(name)
        if recipe is None:
            return "hold"
        return recipe.on_uncertain or ("retry" if is_newest else "hold")

    def claim_seconds(self, name: str) -> float:
        """Return for how long a claim of this target holds: longer than its call can take."""
        return self._targets[name].timeout + self._margin
