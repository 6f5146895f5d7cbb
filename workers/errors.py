"""How a deploy call says that it did not succeed. The texts name no URL and no secret."""

from __future__ import annotations

from config.errors import RelayError


class CallFailed(RelayError):
    """No complete answer came back. Trying again may help."""


class DeployFailed(RelayError):
    """The deploy will not happen; its job goes to RQ's failed registry, the dead letter."""
