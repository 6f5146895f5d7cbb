"""The models of relay.yaml: which sources may speak, which targets exist, which route joins them.

Plain data, checked as far as one key can be checked alone. config/loading.py adds what needs the
whole file: positions of mistakes, names that refer to each other, presets and secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    BeforeValidator,
    Field,
    PrivateAttr,
    SecretStr,
    WithJsonSchema,
    model_validator,
)

from config.hours import Hours
from config.networks import Network
from config.policies import (
    Breaker,
    CountedRate,
    MaybeApproval,
    MaybeDebounce,
    Rates,
    RetryPolicy,
    Scalar,
    Success,
)
from config.values import (
    LIST_SCHEMA,
    Duration,
    Name,
    PathPatterns,
    Rate,
    RateLimit,
    Strict,
    TextPatterns,
    one_or_many,
)

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


def _secrets_in_json(value: Any) -> Any:
    """A body in which ``{env: NAME}`` and ``{file: PATH}`` are secrets, as elsewhere."""
    if isinstance(value, list):
        return [_secrets_in_json(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        [(key, text)] = value.items()
        # An object that the platform wants and that looks like a secret is written with a template.
        if key in ("env", "file") and isinstance(text, str) and text and "{" not in text:
            return SecretRef.model_validate(value)
    return {key: _secrets_in_json(item) for key, item in value.items()}


JsonBody = Annotated[Any, Field(alias="json"), BeforeValidator(_secrets_in_json)]

OnUncertain = Literal["retry", "hold"]
"""What follows an uncertain call."""

Text = SecretRef | str
"""A value of a deploy call: a template, or a secret taken as it is."""


class Source(Strict):
    """A git server that may send webhooks to ``POST /hooks/<name>``."""

    provider: ProviderName
    secrets: tuple[SecretRef, ...] = ()
    """Any of them may sign, so that one can be rotated without a gap."""
    signing_tokens: tuple[SecretRef, ...] = ()
    """GitLab only: ``whsec_…`` tokens."""
    tolerance: Duration = 300
    """Seconds a signed timestamp may be away from now."""
    server: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")] | None = None
    """Name of the git server, equal in all sources of one server: their webhooks about a repository
    are then one history. The source's own name if left out."""
    repos: PathPatterns = ("**",)
    """Repositories this source may speak for; events of others are ignored."""
    networks: Annotated[
        tuple[Network, ...], BeforeValidator(one_or_many), WithJsonSchema(LIST_SCHEMA)
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


class Target(Strict):
    """A deploy hook: a preset, its URL, and what differs from the preset."""

    preset: str
    url: Text
    method: Literal["GET", "POST", "PUT", "PATCH", "DELETE"] | None = None
    query: dict[str, Text] | None = None
    headers: dict[str, Text] | None = None
    json_body: JsonBody = None
    form: dict[str, Text] | None = None
    success: Success | None = None
    deployment_id: str | None = None
    """Dotted path of the platform's id of the deployment in its JSON answer."""
    timeout: Annotated[Duration, Field(gt=0, le=3_600)] = 30
    """Seconds for the whole call."""
    connect_timeout: Annotated[Duration, Field(gt=0, le=3_600)] = 5
    """Seconds for the connection alone."""
    retry: RetryPolicy = RetryPolicy()
    on_uncertain: OnUncertain | None = None
    """After a call that was sent and not answered: make it again, or hold the deploy until somebody
    decides. Left out: again where its state is still the newest of its ref, as a spare deploy of a
    commit is better than none, and where the preset says that calling twice does no harm."""
    concurrency: Annotated[int, Field(ge=1)] = 50
    """Calls to this target at any one time, over all workers. Only 1 keeps them in order."""
    supersede: bool | None = None
    """Of several commits of one branch that wait, only the newest is deployed. Left out: what the
    preset says, which is yes for platforms and no for http."""
    debounce: MaybeDebounce = None
    """A duration, or quiet and cap. Only the newest is deployed, as with supersede."""
    breaker: Breaker | None = Breaker()
    """null switches it off."""
    rate: Rates = ()
    """Calls to this target in any such interval at most, over all workers: 10/m, 500/30d."""
    hours: Hours | None = None
    """When it may be called; at any time if left out."""
    approval: MaybeApproval = None
    """required: each deploy waits until somebody approves it."""
    options: dict[str, Scalar | SecretRef] = Field(default_factory=dict)
    """What the preset lets a target choose; in the file these keys stand beside the others."""

    @property
    def newest_only(self) -> bool:
        """Whether an older deploy of a branch, tag or pull request gives way to a newer one."""
        return bool(self.supersede) or self.debounce is not None

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
        BeforeValidator(one_or_many),
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
    deploy: Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)]
    sources: Annotated[tuple[str, ...], BeforeValidator(one_or_many)] | None = None
    """Only events from these sources; from any if left out."""
    branches: PathPatterns | None = None
    """Branch that was pushed or deleted, or that asks to be merged. Tags are not concerned."""
    base_branches: PathPatterns | None = None
    """Branch a pull request asks to be merged into."""
    tags: PathPatterns | None = None
    paths: PathPatterns | None = None
    """At least one changed file must match. Where the list is incomplete, the event passes."""
    actions: Annotated[
        tuple[ActionName, ...], BeforeValidator(one_or_many), Field(min_length=1)
    ] = DEPLOYING_ACTIONS
    labels: TextPatterns | None = None
    """At least one label of the pull request must match, and none behind ``!``."""
    authors: TextPatterns | None = None
    """Login, name or email of the head commit's or the pull request's author."""
    messages: TextPatterns | None = None
    """Message of the head commit."""
    forks: bool = False
    drafts: bool = False


NoticeKind = Literal["failure", "recovery", "held", "approval"]
"""A deploy failed; the first success after a failure; a deploy is uncertain; a deploy waits for
approval."""

NOTICE_KINDS: tuple[NoticeKind, ...] = get_args(NoticeKind)


class Notifier(Strict):
    """Where notices are sent, which and how."""

    name: Annotated[str, Field(min_length=1, max_length=100)]
    on: Annotated[
        tuple[NoticeKind, ...],
        BeforeValidator(one_or_many),
        Field(min_length=1),
        WithJsonSchema(
            {
                "anyOf": [
                    {"enum": list(NOTICE_KINDS)},
                    {"type": "array", "minItems": 1, "items": {"enum": list(NOTICE_KINDS)}},
                ]
            }
        ),
    ] = NOTICE_KINDS
    targets: Annotated[
        Annotated[tuple[str, ...], BeforeValidator(one_or_many), Field(min_length=1)] | None,
        WithJsonSchema(LIST_SCHEMA),
    ] = None
    """Only deploys to these targets; to any if left out."""
    repos: PathPatterns = ("**",)
    """Only deploys of these repositories."""
    preset: Literal["slack", "http"]
    """slack is the JSON that Slack's incoming webhooks take, and others that are like them."""
    url: Text
    headers: dict[str, Text] | None = None
    """Of preset http."""
    json_body: JsonBody = None
    """Of preset http: the template of the body, in place of the default one."""
    rate: CountedRate = RateLimit(10, 60)
    """Messages at most, over all workers. Further notices are summed up in one message."""

    @model_validator(mode="after")
    def _slack_has_its_own(self) -> Notifier:
        if self.preset == "slack" and (self.headers is not None or self.json_body is not None):
            raise ValueError("headers and json are of preset http; slack has its own")
        return self


class RelayConfig(Strict):
    """A whole relay.yaml."""

    sources: dict[Name, Source]
    targets: dict[Name, Target] = Field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    notify: tuple[Notifier, ...] = ()
