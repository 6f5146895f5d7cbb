"""How a target is called and what makes its deploys wait: the parts of its entry in relay.yaml."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from config.values import (
    DURATION_SCHEMA,
    LIST_SCHEMA,
    Duration,
    Rate,
    RateLimit,
    Strict,
    one_or_many,
)

Scalar = bool | int | float | str


class Success(Strict):
    """When an answer of a platform means that a deploy was accepted."""

    status: Annotated[tuple[Annotated[int, Field(ge=100, le=599)], ...], Field(min_length=1)] = (
        200,
        201,
        202,
        203,
        204,
    )
    body: dict[str, Scalar | tuple[Scalar, ...]] = Field(default_factory=dict)
    """Dotted path in a JSON answer, and the value or values it must have."""


class RetryPolicy(Strict):
    """How often and how far apart a failed call is tried again."""

    attempts: Annotated[int, Field(ge=1, le=100)] = 5
    """Calls in all, the first one included."""
    base: Duration = 2
    """Seconds; the pause before attempt n+1 is random between 0 and base times 2 to the n-1."""
    cap: Duration = 300
    """Seconds that a pause of our own never exceeds."""
    retry_after_cap: Duration = 3_600
    """Seconds that a platform's Retry-After is honoured for at most."""


class Breaker(Strict):
    """When a target that fails is left alone for a while."""

    failures: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    """Failed calls in a row until it opens. No answer, 408, 425 and 5xx count."""
    pause: Annotated[Duration, Field(gt=0)] = 60
    """Seconds that it stays open; twice as long each time that the probe after it fails."""
    cap: Annotated[Duration, Field(gt=0)] = 1_800
    """Seconds that it stays open at most."""


def _quiet_alone(value: Any) -> Any:
    return value if isinstance(value, dict | Debounce | None) else {"quiet": value}


class Debounce(Strict):
    """How long a branch, tag or pull request must rest before it is deployed."""

    quiet: Annotated[Duration, Field(gt=0)]
    """Seconds without a newer deploy of it."""
    cap: Annotated[Duration, Field(gt=0)] = 300
    """Seconds after the first waiting deploy, when the newest is called in any case."""


def _required_alone(value: Any) -> Any:
    if isinstance(value, str) and value != "required":
        raise ValueError("write required, or {expires: 3d}")
    return {} if value == "required" else value


class ApprovalPolicy(Strict):
    """Whether a person must approve each deploy, and for how long it waits."""

    expires: Annotated[Duration, Field(gt=0)] = 604_800
    """Seconds after which a deploy that nobody has approved fails."""


MOST_CALLS = 100_000
"""Calls of one interval that a target's rate counts at most; each is a row of the ledger."""


def _check_rate(rate: RateLimit) -> RateLimit:
    if rate.most > MOST_CALLS:
        raise ValueError(f"a rate counts {MOST_CALLS} calls at most")
    return rate


def _check_rates(rates: tuple[RateLimit, ...]) -> tuple[RateLimit, ...]:
    return tuple(_check_rate(rate) for rate in rates)


CountedRate = Annotated[Rate, AfterValidator(_check_rate)]

Rates = Annotated[
    tuple[Rate, ...],
    BeforeValidator(one_or_many),
    AfterValidator(_check_rates),
    Field(max_length=10),
    WithJsonSchema(LIST_SCHEMA),
]

MaybeDebounce = Annotated[
    Debounce | None,
    BeforeValidator(_quiet_alone),
    WithJsonSchema(
        {
            "anyOf": [
                DURATION_SCHEMA,
                {
                    "type": "object",
                    "properties": {"quiet": DURATION_SCHEMA, "cap": DURATION_SCHEMA},
                    "required": ["quiet"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]

MaybeApproval = Annotated[
    ApprovalPolicy | None,
    BeforeValidator(_required_alone),
    WithJsonSchema(
        {
            "anyOf": [
                {"const": "required"},
                {
                    "type": "object",
                    "properties": {"expires": DURATION_SCHEMA},
                    "additionalProperties": False,
                },
                {"type": "null"},
            ]
        }
    ),
]
