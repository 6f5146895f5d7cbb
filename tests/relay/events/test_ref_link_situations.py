"""Pushes to GitLab and GitBucket, which have no clock: the links tell, and the copies.

Each row: what happened, the webhooks in the order of arrival, and their verdicts with the number
of the state; a question mark means uncertain. The rows are those of docs/ref-history.md.
"""

from __future__ import annotations

import pytest

from relay.events.ref_history import Arrival
from tests.relay.events.webhooks import Situation, gitlab, verdicts_of

SITUATIONS: list[Situation] = [
    (
        "GitLab: pushed, deleted, restored at the same commit, deleted",
        [
            gitlab("", "A", 100),
            gitlab("A", "", 200),
            gitlab("", "A", 300),
            gitlab("A", "", 400),
        ],
        "new 1, new 2, new 3?, new 4?",
    ),
    (
        "GitLab: A, B, A, B by force",
        [
            gitlab("", "A", 100),
            gitlab("A", "B", 200),
            gitlab("B", "A", 300),
            gitlab("A", "B", 400),
        ],
        "new 1, new 2, new 3, new 4?",
    ),
    (
        "GitLab: the same where two copies are usual and the second B has had one",
        [
            gitlab("", "A", 100),
            gitlab("", "A", 100, id="hook 2"),
            gitlab("A", "B", 200),
            gitlab("B", "A", 300),
            gitlab("A", "B", 400),
        ],
        "new 1, same 1, new 2, new 3, same 2?",
    ),
    (
        "GitLab: a second hook minutes later",
        [gitlab("", "A", 100), gitlab("", "A", 100, id="hook 2", seen=400)],
        "new 1, same 1",
    ),
    (
        "GitLab: a second hook of an older push after a newer push",
        [
            gitlab("", "A", 100),
            gitlab("", "A", 100, id="0b"),
            gitlab("A", "B", 200),
            gitlab("B", "C", 202),
            gitlab("A", "B", 200, id="1b", seen=206),
        ],
        "new 1, same 1, new 2, new 3, same 2",
    ),
    (
        "GitLab: pushes arrive 1, 3, 2",
        [gitlab("", "A", 100), gitlab("B", "C", 300), gitlab("A", "B", 200, seen=302)],
        "new 1, new 2?, late 3",
    ),
    (
        "GitLab: there and back, reversed",
        [gitlab("", "A", 100), gitlab("B", "A", 200), gitlab("A", "B", 199, seen=202)],
        "new 1, new 2?, late 3?",
    ),
    (
        "GitLab: the same",
        [gitlab("A", "B", 200), gitlab("X", "A", 100, seen=5_000)],
        "new 1?, late 2",
    ),
    (
        "GitLab: A-B again within ten minutes is a copy",
        [
            gitlab("", "A", 100),
            gitlab("A", "B", 200),
            gitlab("B", "C", 300),
            gitlab("A", "B", 400),
        ],
        "new 1, new 2, new 3, same 2",
    ),
    (
        "GitBucket: A-B again long after is a copy, because redelivery makes new ids",
        [
            gitlab("", "A", 100, keeps_id=False),
            gitlab("A", "B", 200, keeps_id=False),
            gitlab("B", "C", 300, keeps_id=False),
            gitlab("A", "B", 9_000, keeps_id=False),
        ],
        "new 1, new 2, new 3, same 2",
    ),
    (
        "GitLab: A-B again long after, while the push back is lost: the ref made it again",
        [
            gitlab("", "A", 100),
            gitlab("A", "B", 200),
            gitlab("B", "C", 300),
            gitlab("A", "B", 9_000),
        ],
        "new 1, new 2, new 3, new 4?",
    ),
    (
        "first event: a commit is its start and nothing tells when; its own clock is old",
        [gitlab("A", "B", 100)],
        "new 1?",
    ),
    (
        "GitLab: it starts where the ref stands and ends where an older state begins",
        [gitlab("", "A", 100), gitlab("X", "Y", 200), gitlab("Y", "X", 300)],
        "new 1, new 2?, new 3?",
    ),
    (
        "GitLab: with fewer than three states nothing is known of the usual copies",
        [gitlab("", "A", 1), gitlab("A", "B", 2), gitlab("", "A", 9_000)],
        "new 1, new 2, same 1",
    ),
    (
        "GitLab: a second hook that is still expected, hours later",
        [
            gitlab("", "A", 1),
            gitlab("", "A", 1, id="0b"),
            gitlab("A", "B", 2),
            gitlab("B", "C", 3),
            gitlab("B", "C", 3, id="2b"),
            gitlab("A", "B", 9_000),
        ],
        "new 1, same 1, new 2, new 3, same 3, same 2",
    ),
    (
        "neither clock nor start: a known value that expects a copy",
        [
            gitlab(None, "A", 1),
            gitlab(None, "A", 1, id="0b"),
            gitlab(None, "B", 2),
            gitlab(None, "C", 3),
            gitlab(None, "B", 2, id="1b"),
            gitlab(None, "A", 1, id="0c"),
        ],
        "new 1, same 1, new 2?, new 3?, same 2, new 4?",
    ),
]


@pytest.mark.parametrize(("name", "arrivals", "verdicts"), SITUATIONS)
def test_situation(name: str, arrivals: list[Arrival], verdicts: str) -> None:
    assert verdicts_of(arrivals) == verdicts, name
