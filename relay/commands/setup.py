"""What commands do before their own work: check relay.yaml, set up the audit."""

from __future__ import annotations

import sys
from typing import BinaryIO

from config.errors import ConfigError
from config.loading import Loaded, load
from config.model import RelayConfig
from config.secret_places import SECTIONS, secret_values
from config.settings import Settings, load_settings
from relay import audit
from relay.audit_file import audit_file
from relay.notices import rehearse_notices
from relay.planning import rehearse


def ready(settings: Settings, *, secrets: bool = True) -> Loaded:
    """Return relay.yaml, with every check that needs no call. Raises ConfigError."""
    loaded = load(settings.config, secrets_of=SECTIONS if secrets else ())
    problems = rehearse(loaded) + rehearse_notices(loaded)
    if problems:
        raise ConfigError(problems)
    return loaded


def configure_audit(settings: Settings, config: RelayConfig) -> None:
    """Set up the audit of a process that has read relay.yaml."""
    audit.configure(
        style=settings.log_format,
        level=settings.log_level,
        secrets=secret_values(config) | settings.secret_values(),
        file=audit_file(settings),
    )


def audit_to_stderr(stderr: BinaryIO | None = None) -> Settings:
    """Set up the audit on standard error, as standard output is the command's, and return the
    settings. ``stderr`` stands in for it. No secret of relay.yaml is loaded."""
    settings = load_settings()
    buffered = sys.stderr.buffer
    audit.configure(
        stream=stderr or getattr(buffered, "raw", buffered),
        style=settings.log_format,
        secrets=settings.secret_values(),
        file=audit_file(settings),
    )
    return settings
