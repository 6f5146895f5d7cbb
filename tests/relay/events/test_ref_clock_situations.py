"""Pushes to GitHub, whose clock is the time of the push.

Each row: what happened, the webhooks in the order of arrival, and their verdicts with the number
of the state; a question mark means uncertain. The rows are those of docs/ref-history.md.
"""

from __future__ import annotations

import pytest

from relay.events.ref_history import Arrival
from tests.relay.events.webhooks import Situation, gitea, github, verdicts_of

SITUATIONS: list[Situation] = [
    (
        "GitHub: pushed, deleted, restored at the same commit, deleted; a tag likewise",
        [
            github("", "A", 100),
            github("A", "", 200),
            github("", "A", 300),
            github("A", "", 400),
        ],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "GitHub: A, B, A, B by force",
        [
            github("", "A", 100),
            github("A", "B", 200),
            github("B", "A", 300),
            github("A", "B", 400),
        ],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "GitHub: an App hook has the id and another body; repository and organisation hook too",
        [
            github("", "A", 100, id="1"),
            github("", "A", 100, id="1", body="installation"),
            github("", "A", 100, id="1", seen=160),
        ],
        "new 1, same 1, known 1",
    ),
    (
        "GitHub: a known id with the body of another push",
        [github("", "A", 100, id="1"), github("A", "B", 200, id="1")],
        "new 1, new 2",
    ),
    (
        "GitHub: the same, by another clock of the same second push",
        [
            github("", "A", 100),
            github("A", "B", 200),
            github("B", "C", 202),
            github("A", "B", 201, id="1b", seen=206),
        ],
        "new 1, new 2, new 3, same 2",
    ),
    (
        "GitHub: pushes arrive 1, 3, 2",
        [github("", "A", 100), github("B", "C", 300), github("A", "B", 200, seen=302)],
        "new 1, new 2, late 3",
    ),
    (
        "GitHub: the second of three is lost",
        [github("", "A", 100), github("B", "C", 300)],
        "new 1, new 2",
    ),
    (
        "GitHub: there and back in one second, reversed",
        [github("", "A", 100), github("B", "A", 200), github("A", "B", 200, seen=202)],
        "new 1, new 2, late 3?",
    ),
    (
        "GitHub: there and back in three seconds, reversed: the clock decides",
        [github("", "A", 100), github("B", "A", 203), github("A", "B", 201, seen=205)],
        "new 1, new 2, late 3?",
    ),
    (
        "GitHub: the payload of an older push was written later: the links win",
        [github("", "A", 100), github("A", "B", 203), github("B", "C", 202)],
        "new 1, new 2, new 3",
    ),
    (
        "GitHub: the same where the older one arrives last",
        [github("", "A", 100), github("B", "C", 202), github("A", "B", 203)],
        "new 1, new 2, late 3",
    ),
    (
        "GitHub: a refused push sent again by a person after a newer push",
        [github("A", "B", 200), github("X", "A", 100, seen=5_000)],
        "new 1, late 2",
    ),
    (
        "GitHub: the clock of the git server is set back",
        [github("", "A", 10_000), github("A", "B", 1_000, seen=10_100)],
        "new 1, late 2?",
    ),
    ("first event: GitHub, 20 minutes old", [github("A", "B", 100, seen=1_300)], "new 1?"),
    ("first event: GitHub, in time", [github("A", "B", 100)], "new 1"),
    (
        "GitHub: there and back, then another hook of the first: it cannot be before and after",
        [
            github("", "A", 100),
            github("A", "B", 200),
            github("B", "A", 210),
            github("A", "B", 200, id="2", body="installation", seen=215),
        ],
        "new 1, new 2, new 3, same 2",
    ),
    (
        "GitHub: A-B made again in the second of B-A is no copy of an older A-B",
        [
            github("", "A", 50),
            github("A", "B", 100),
            github("B", "A", 200),
            github("A", "B", 200),
        ],
        "new 1, new 2, new 3, new 4",
    ),
    (
        "clocks of two kinds cannot be compared: the links tell",
        [github("", "A", 1_000), gitea("A", "B", 500)],
        "new 1, new 2",
    ),
]


@pytest.mark.parametrize(("name", "arrivals", "verdicts"), SITUATIONS)
def test_situation(name: str, arrivals: list[Arrival], verdicts: str) -> None:
    assert verdicts_of(arrivals) == verdicts, name
