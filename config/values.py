"""The types of texts in relay.yaml: durations, rates, patterns, names."""

from __future__ import annotations

import re
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from config.patterns import Flavour, check_pattern

_UNITS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400}

LONGEST = 3_650 * 86_400
"""Seconds that anything may last, ten years."""


def parse_duration(value: Any) -> Any:
    """Seconds from a number or from text such as ``10s``, ``5m``, ``1.5h`` or ``3d``.

    Raises ValueError for other text, for more than twelve digits, and for true and false.
    """
    refusal = "not a duration: write a number of seconds, or 10s, 5m, 2h, 3d"
    if isinstance(value, bool):
        raise ValueError(refusal)  # noqa: TRY004 - pydantic reports nothing else
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"\s*([0-9]{1,12}(?:\.[0-9]{1,6})?)\s*(ms|s|m|h|d)?\s*", value)
    if not found:
        raise ValueError(refusal)
    return float(found[1]) * _UNITS[found[2] or "s"]


class RateLimit(NamedTuple):
    """At most ``most`` within ``seconds``."""

    most: int
    seconds: float


def parse_rate(value: Any) -> Any:
    """A rate from text such as ``100/s``, ``600/m`` or ``500/30d``. Raises ValueError for other."""
    found = re.fullmatch(r"\s*([1-9][0-9]{0,8})\s*/\s*([1-9][0-9]{0,2})?(s|m|h|d)\s*", str(value))
    if not found:
        raise ValueError("not a rate: write 100/s, 600/m, 1000/h or 500/30d")
    return RateLimit(int(found[1]), int(found[2] or 1) * _UNITS[found[3]])


def one_or_many(value: Any) -> Any:
    """A list, where one text may stand for a list of one."""
    return [value] if isinstance(value, str) else value


def _patterns(flavour: Flavour) -> AfterValidator:
    def check(patterns: tuple[str, ...]) -> tuple[str, ...]:
        for pattern in patterns:
            try:
                check_pattern(pattern.removeprefix("!"), flavour)
            except ValueError as error:
                raise ValueError(f"pattern {pattern!r}: {error}") from None
        return patterns

    return AfterValidator(check)


LIST_SCHEMA: dict[str, Any] = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
DURATION_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "number", "minimum": 0},
        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)?\s*$"},
    ]
}
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, le=LONGEST),
    WithJsonSchema(DURATION_SCHEMA),
]
Rate = Annotated[
    RateLimit,
    BeforeValidator(parse_rate),
    WithJsonSchema(
        {"type": "string", "pattern": r"^\s*[1-9]\d{0,8}\s*/\s*([1-9]\d{0,2})?(s|m|h|d)\s*$"}
    ),
]
PathPatterns = Annotated[
    tuple[str, ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    _patterns("path"),
    WithJsonSchema(LIST_SCHEMA),
]
TextPatterns = Annotated[
    tuple[str, ...],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    _patterns("text"),
    WithJsonSchema(LIST_SCHEMA),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+(?:(?:_+|-)[A-Za-z0-9]+)*$", max_length=64)]
"""A name that can be part of a URL."""


class Strict(BaseModel):
    """Unknown keys are refused, and nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )
