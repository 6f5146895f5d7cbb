"""The models of relay.yaml: which sources may speak, which targets exist, which route joins them.

Plain data, checked as far as one key can be checked alone. config/loading.py adds what needs the
whole file: positions of mistakes, names that refer to each other, presets and secrets.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from config.networks import Network
from config.patterns import Flavour, check_pattern

ProviderName = Literal["github", "gitlab", "gitea", "forgejo", "gogs"]
On = Literal["push", "tag", "pull_request", "delete"]
ActionName = Literal[
    "opened",
    "reopened",
    "synchronize",
    "ready_for_review",
    "converted_to_draft",
    "edited",
    "labeled",
    "unlabeled",
    "closed",
]

DEPLOYING_ACTIONS: tuple[ActionName, ...] = (
    "opened",
    "reopened",
    "synchronize",
    "ready_for_review",
)
"""What a pull request route reacts to unless it says otherwise: the code under review is new."""

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
    """A rate from text such as ``100/s``, ``600/m`` or ``1000/h``. Raises ValueError for other."""
    found = re.fullmatch(r"\s*([1-9][0-9]{0,8})\s*/\s*(s|m|h|d)\s*", str(value))
    if not found:
        raise ValueError("not a rate: write 100/s, 600/m or 1000/h")
    return RateLimit(int(found[1]), _UNITS[found[2]])


def _one_or_many(value: Any) -> Any:
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


_LIST_SCHEMA = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(ge=0, le=LONGEST),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)?\s*$"},
            ]
        }
    ),
]
Rate = Annotated[
    RateLimit,
    BeforeValidator(parse_rate),
    WithJsonSchema({"type": "string", "pattern": r"^\s*[1-9]\d{0,8}\s*/\s*(s|m|h|d)\s*$"}),
]
PathPatterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    _patterns("path"),
    WithJsonSchema(_LIST_SCHEMA),
]
TextPatterns = Annotated[
    tuple[str, ...],
    BeforeValidator(_one_or_many),
    Field(min_length=1),
    _patterns("text"),
    WithJsonSchema(_LIST_SCHEMA),
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]+(?:(?:_+|-)[A-Za-z0-9]+)*$", max_length=64)]
"""A name that can stand in a URL, in a Redis key and in front of ``--`` in a job id."""


class Strict(BaseModel):
    """Unknown keys are refused, and nothing changes after loading."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, populate_by_name=True
    )


class SecretRef(Strict):
    """Where a secret is kept: an environment variable or a file. Never the secret itself."""

    env: Annotated[str, Field(min_length=1)] | None = None
    file: Path | None = None
    _value: SecretStr | None = PrivateAttr(default=None)

    @model_validator(mode="after")
    def _exactly_one(self) -> SecretRef:
        if (self.env is None) == (self.file is None):
            raise ValueError("say where the secret is: either env or file")
        return self

    def __str__(self) -> str:
        return f"<env {self.env}>" if self.env is not None else f"<file {self.file}>"

    def keep(self, value: SecretStr) -> None:
        """Remember the secret that was found at this place."""
        self._value = value

    @property
    def is_loaded(self) -> bool:
        """Whether the secret was looked up in this process."""
        return self._value is not None

    def reveal(self) -> str:
        """The secret itself. Raises LookupError where it was not loaded."""
        if self._value is None:
            raise LookupError(f"secret {self} was not loaded in this process")
        return self._value.get_secret_value()


Text = SecretRef | str
"""A value of a deploy call: a template, or a secret taken as it is."""

Scalar = bool | int | float | str


class Source(Strict):
    """A git server that may send webhooks to ``POST /hooks/<name>``."""

    provider: ProviderName
    secrets: tuple[SecretRef, ...] = ()
    """Any of them may sign, so that one can be rotated without a gap."""
    signing_tokens: tuple[SecretRef, ...] = ()
    """GitLab only: ``whsec_…`` tokens."""
    tolerance: Duration = 300
    """Seconds a signed timestamp may be away from now."""
    repos: PathPatterns = ("**",)
    """Repositories this source may speak for; events of others are ignored."""
    networks: Annotated[
        tuple[Network, ...], BeforeValidator(_one_or_many), WithJsonSchema(_LIST_SCHEMA)
    ] = ()
    """Networks that its webhooks come from; from anywhere if left out."""
    rate: Rate | None = None
    """Webhooks that one receiver process takes of it at most, such as ``100/s``."""

    @model_validator(mode="after")
    def _has_keys(self) -> Source:
        if not self.secrets and not self.signing_tokens:
            raise ValueError("without a secret anyone could deploy: give at least one in secrets")
        if self.signing_tokens and self.provider != "gitlab":
            raise ValueError("signing_tokens are GitLab's; use secrets")
        return self


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


class Target(Strict):
    """A deploy hook: a preset, its URL, and what differs from the preset."""

    preset: str
    url: Text
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    query: dict[str, Text] | None = None
    headers: dict[str, Text] | None = None
    json_body: Annotated[Any, Field(alias="json")] = None
    form: dict[str, Text] | None = None
    success: Success | None = None
    deployment_id: str | None = None
    """Dotted path of the platform's id of the deployment in its JSON answer."""
    timeout: Annotated[Duration, Field(gt=0, le=3_600)] = 30
    """Seconds for the whole call."""
    connect_timeout: Annotated[Duration, Field(gt=0, le=3_600)] = 5
    """Seconds for the connection alone."""
    retry: RetryPolicy = RetryPolicy()
    window: Duration = 259_200
    """Seconds in which the same commit is deployed here once, whichever webhook brings it."""
    concurrency: Annotated[int, Field(ge=1)] = 50
    """Calls to this target at any one time, over all workers. Only 1 keeps them in order."""
    supersede: bool = False
    """Of several commits of one branch that wait, only the newest is deployed."""
    options: dict[str, Scalar | SecretRef] = Field(default_factory=dict)
    """What the preset lets a target choose; in the file these keys stand beside the others."""

    @model_validator(mode="after")
    def _one_body(self) -> Target:
        if self.json_body is not None and self.form is not None:
            raise ValueError("a call has one body: either json or form")
        return self


class Route(Strict):
    """Which events of which repositories go to which targets."""

    name: Annotated[str, Field(min_length=1, max_length=200)]
    repo: PathPatterns
    on: Annotated[
        tuple[On, ...],
        BeforeValidator(_one_or_many),
        Field(min_length=1),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": ["push", "tag", "pull_request", "delete"]},
                    {
                        "type": "array",
                        "minItems": 1,
                        "items": {"enum": ["push", "tag", "pull_request", "delete"]},
                    },
                ]
            }
        ),
    ]
    deploy: Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Field(min_length=1)]
    sources: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] | None = None
    """Only events from these sources; from any if left out."""
    branches: PathPatterns | None = None
    """Branch that was pushed or deleted, or that asks to be merged. Tags are not concerned."""
    base_branches: PathPatterns | None = None
    """Branch a pull request asks to be merged into."""
    tags: PathPatterns | None = None
    paths: PathPatterns | None = None
    """At least one changed file must match. Where the list is incomplete, the event passes."""
    actions: Annotated[
        tuple[ActionName, ...], BeforeValidator(_one_or_many), Field(min_length=1)
    ] = DEPLOYING_ACTIONS
    labels: TextPatterns | None = None
    """At least one label of the pull request must match, and none behind ``!``."""
    authors: TextPatterns | None = None
    """Login, name or email of the head commit's or the pull request's author."""
    messages: TextPatterns | None = None
    """Message of the head commit."""
    forks: bool = False
    drafts: bool = False


class RelayConfig(Strict):
    """A whole relay.yaml."""

    sources: dict[Name, Source]
    targets: dict[Name, Target] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
