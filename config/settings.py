"""Process settings: environment variables RELAY_*, or files of the same names in /run/secrets."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from config.errors import ConfigError, ConfigProblem
from config.networks import Network
from config.redis_url import parse, passwords
from config.values import LONGEST, parse_duration

_SECRETS_DIR = Path("/run/secrets")
_MEBIBYTE = 1024 * 1024

Seconds = Annotated[float, BeforeValidator(parse_duration), Field(gt=0)]

Lifetime = Annotated[float, BeforeValidator(parse_duration), Field(ge=1, le=LONGEST)]
"""Seconds for which something is kept."""


def _listed(value: object) -> object:
    if not isinstance(value, str):
        return value
    return [part for part in (piece.strip() for piece in value.split(",")) if part]


Networks = Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_listed)]
"""Networks with commas between them."""


def _redis_url(url: SecretStr) -> SecretStr:
    parse(url.get_secret_value())
    return url


def _names_a_file(path: Path) -> Path:
    # An empty variable is this folder. Path.is_dir raises where this user may not look.
    if os.path.isdir(path):
        raise ValueError("it is empty or names a folder, where the name of a file is needed")
    return path


def _off_is_none(value: object) -> object:
    return None if value in ("", "off", "none") else value


class Settings(BaseSettings):
    """Everything about the processes; what is deployed where stands in relay.yaml."""

    model_config = SettingsConfigDict(
        env_prefix="RELAY_",
        secrets_dir=_SECRETS_DIR if _SECRETS_DIR.is_dir() else None,
        extra="ignore",
        frozen=True,
        use_attribute_docstrings=True,
    )

    config: Path = Path("relay.yaml")
    """Path of relay.yaml."""
    host: str = "127.0.0.1"
    """Address the receiver listens on; 0.0.0.0 for all."""
    port: Annotated[int, Field(ge=0, le=65_535)] = 8080
    """Port the receiver listens on; 0 takes any free one."""
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    """Receiver processes that share the port; more than one needs Linux or a BSD."""
    console_host: str = "127.0.0.1"
    """Address the console listens on; 0.0.0.0 for all."""
    console_port: Annotated[
        Annotated[int, Field(ge=0, le=65_535)] | None, BeforeValidator(_off_is_none)
    ] = 8081
    """Port of the console; 0 takes any free one, off has `up` run none."""
    console_url: Annotated[str, Field(pattern=r"^https?://[^/?#]+$")] | None = None
    """Base of links to the console, as people reach it; left out: http://host:port."""
    redis_url: Annotated[SecretStr, AfterValidator(_redis_url)] | None = None
    """redis://, rediss://, unix:// or redis+sentinel:// URL; left out: the server that `up` runs in
    data_dir."""
    data_dir: Path = Path("relay-data")
    """Folder of the ledger, of the embedded server's socket and of the metrics; on a local disk."""
    ledger_fsync: Literal["full", "normal"] = "full"
    """When the receiver's commits are on the disk: full, before the sender is answered; normal,
    with the next commit of a worker or the system's next sync, so that a power cut can cost
    deliveries that were answered."""
    queue: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")] = "deploy-relay"
    """Name of the RQ queue."""
    jobs_in_flight: Annotated[int, Field(ge=1, le=10_000)] = 200
    """Jobs that one worker runs at a time."""
    max_body: Annotated[int, Field(gt=0)] = 25 * _MEBIBYTE
    """Bytes of a webhook body at most."""
    bodies_in_memory: Annotated[int, Field(gt=0)] = 256 * _MEBIBYTE
    """Bytes that all bodies which are being read may take together, in one receiver process."""
    body_timeout: Seconds = 30
    """Seconds in which a webhook body must have arrived."""
    header_timeout: Seconds = 10
    """Seconds in which the headers of a request must have arrived."""
    keep_alive: Seconds = 75
    """Seconds for which a connection is kept open between two requests."""
    max_connections: Annotated[int, Field(ge=1, le=1_000_000)] = 4_096
    """Connections of one receiver process at most; fewer where the system allows fewer files."""
    trusted_proxies: Networks = ()
    """Networks of the proxies whose X-Forwarded-For is believed."""
    store_timeout: Annotated[Seconds, Field(le=60)] = 3
    """Seconds that a commit to the ledger may take before a sender is answered 503. Gitea and
    Forgejo wait 5 for an answer."""
    shutdown_grace: Seconds = 30
    """Seconds that requests and calls in flight get to finish on SIGTERM."""
    allowed_networks: Networks = ()
    """Networks that targets may be in though they are not public, such as 10.0.0.0/8."""
    reload_interval: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=LONGEST)] = 2
    """Seconds between two looks at relay.yaml and its secrets; 0: only SIGHUP reads them again."""
    metrics_host: str = "127.0.0.1"
    """Address on which metrics are served; 0.0.0.0 for all."""
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = None
    """Port of the metrics, 0 for any free one; left out: only the console serves them."""
    otel: bool = False
    """Send traces, as OpenTelemetry's variables OTEL_* say. Setting its endpoint is enough, too."""
    otel_traceparent: bool = False
    """Send the header traceparent with calls of targets."""
    audit_file: Annotated[Path, AfterValidator(_names_a_file)] | None = None
    """File that the audit is written to as well, as a chain; processes of one machine share it."""
    audit_max_bytes: Annotated[int, Field(gt=0)] = 256 * _MEBIBYTE
    """Bytes after which a new audit file is begun; so it is with each day (UTC)."""
    audit_keep: Annotated[float, BeforeValidator(parse_duration), Field(ge=0, le=LONGEST)] = 0
    """Seconds for which finished audit files are kept; 0: for ever."""
    audit_fsync: Literal["never", "interval", "always"] = "interval"
    """When the audit file is synced to the disk: never by the relay, once a second, or before each
    action that its lines announce."""
    audit_key: SecretStr | None = None
    """Signs the end of the audit file, so that nobody without it can cut lines off unnoticed."""
    log_format: Literal["json", "console"] = "json"
    """One JSON object a line, or coloured lines for people."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Of standard output; debug adds route.skipped. The audit file has info and above anyway."""

    keep_deliveries: Lifetime = 10_368_000
    """Seconds for which deliveries, their deploys and attempts are kept; what is open or live stays
    longer."""
    keep_payloads: Lifetime = 2_592_000
    """Seconds for which payloads are kept, secrets redacted."""
    keep_exchanges: Lifetime = 2_592_000
    """Seconds for which requests and answers of calls are kept, secrets redacted."""
    keep_actions: Lifetime = 34_560_000
    """Seconds for which actions of people are kept."""
    keep_notices: Lifetime = 2_592_000
    """Seconds for which notices are kept after they were sent."""
    keep_refusals: Lifetime = 7_776_000
    """Seconds for which the sums of refused requests are kept."""
    ledger_max_bytes: Annotated[int, Field(ge=0)] = 5_000_000_000
    """Bytes of the ledger; a larger one deletes its oldest deliveries before their time. 0: no
    bound."""

    def redis_address(self) -> str:
        """The URL to connect to; it may hold a password."""
        if self.redis_url is not None:
            return self.redis_url.get_secret_value()
        return f"unix://{self.embedded_socket}"

    @property
    def whose_redis(self) -> str:
        """Return the end of a message that Redis is away; empty where redis_url is set."""
        if self.redis_url is not None:
            return ""
        return (
            "; RELAY_REDIS_URL is not set, so this is the server that `deploy-relay up` runs in "
            f"RELAY_DATA_DIR, {self.data_dir.absolute()}: either it does not run, or another "
            "folder is meant"
        )

    def secret_values(self) -> frozenset[str]:
        """Return the secrets of the settings, which must not be written anywhere: the audit key,
        and the passwords of Redis, as they are and as they are sent."""
        key = self.audit_key.get_secret_value() if self.audit_key else ""
        return passwords(self.redis_address()) | ({key} if key else set())

    @property
    def metrics_folder(self) -> Path:
        """Folder of the metrics of this machine's processes."""
        return self.data_dir.absolute() / "metrics"

    @property
    def embedded_socket(self) -> Path:
        """Where the embedded server listens."""
        return self.data_dir.absolute() / "redis.sock"


def load_settings(**overrides: object) -> Settings:
    """Settings from the environment; ``overrides`` that are None do not count.

    Raises ConfigError naming each variable that cannot be used.
    """
    given: Mapping[str, object] = {k: v for k, v in overrides.items() if v is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise ConfigError(
            [
                ConfigProblem(
                    file="environment",
                    line=0,
                    column=0,
                    where=f"RELAY_{str(issue['loc'][0]).upper()}",
                    message=issue["msg"].removeprefix("Value error, "),
                )
                for issue in error.errors(include_url=False, include_input=False)
            ]
        ) from None
