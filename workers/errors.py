"""The errors of a call to a platform. Their texts name no URL and no secret."""

from __future__ import annotations

from config.errors import RelayError


class CallFailed(RelayError):
    """No complete answer came back. Trying again may help."""

    def __init__(self, reason: str, *, uncertain: bool) -> None:
        """``uncertain``: the request may have been sent, so the platform may have deployed."""
        self.uncertain = uncertain
        super().__init__(reason)


class DeployFailed(RelayError):
    """The call cannot be made, so the deploy ends as failed."""
