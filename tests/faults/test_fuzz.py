"""The fuzzer in its short form; `make torture` runs the long one."""

from __future__ import annotations

import random

from tests.faults.fuzz import fuzz_endpoint, fuzz_providers, wrong


def test_no_bytes_upset_a_provider() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    try:
        ends = fuzz_providers(20_000, seed)
    except Exception as error:
        raise AssertionError(f"seed {seed}") from error

    # Most of it is nonsense, but not all: else only the first bytes would have been tried.
    assert ends["malformed"] > 1_000 < ends["push"] + ends["pull request"], f"seed {seed}"


async def test_no_bytes_upset_the_receiver() -> None:
    seed = random.randrange(1_000_000)  # noqa: S311
    answers = await fuzz_endpoint(2_000, seed)

    assert wrong(answers) == [], f"seed {seed}"
    assert {200, 202, 400, 401} <= answers.statuses.keys(), f"seed {seed}"
