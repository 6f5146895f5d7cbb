"""What commands do before their own work: read relay.yaml thoroughly, set up the audit."""

from __future__ import annotations

from config.errors import ConfigError
from config.loading import Loaded, load
from config.model import RelayConfig
from config.secret_places import SECTIONS, secret_values
from config.settings import Settings
from relay import audit
from relay.audit_file import audit_file
from relay.notices import rehearse_notices
from relay.planning import rehearse


def ready(settings: Settings, *, secrets: bool = True) -> Loaded:
    """relay.yaml, checked as thoroughly as can be without calling anyone."""
    loaded = load(settings.config, secrets_of=SECTIONS if secrets else ())
    problems = rehearse(loaded) + rehearse_notices(loaded)
    if problems:
        raise ConfigError(problems)
    return loaded


def configure_audit(settings: Settings, config: RelayConfig) -> None:
    audit.configure(
        style=settings.log_format,
        level=settings.log_level,
        secrets=secret_values(config) | settings.secret_values(),
        file=audit_file(settings),
    )
