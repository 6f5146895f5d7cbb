"""Forgejo: Gitea's webhooks under its own name, with Gitea's headers beside them.

https://forgejo.org/docs/latest/user/webhooks/
"""

from __future__ import annotations

from typing import ClassVar

from relay.providers.gitea import Gitea


class Forgejo(Gitea):
    """X-Forgejo-Signature, or X-Gitea-Signature from before the names parted."""

    name: ClassVar[str] = "forgejo"
    brands: ClassVar[tuple[str, ...]] = ("Forgejo", "Gitea")
