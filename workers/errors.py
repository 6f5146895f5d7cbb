"""How a deploy call says that it did not succeed. The texts name no URL and no secret."""

from __future__ import annotations

from config.errors import RelayError


class CallFailed(RelayError):
    """No complete answer came back. Trying again may help."""

    def __init__(self, reason: str, *, uncertain: bool) -> None:
        """``uncertain``: the request may have been sent, so the platform may have deployed."""
        self.uncertain = uncertain
        super().__init__(reason)


class DeployFailed(RelayError):
    """The deploy will not happen; its job goes to RQ's failed registry, the dead letter."""


class DeployHeld(DeployFailed):
    """Nobody knows whether the platform deployed, so it is not called again by itself.

    relay/records.py knows this class by its name, as RQ keeps it with the failure.
    """
