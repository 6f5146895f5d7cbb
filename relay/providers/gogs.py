"""Gogs, which Gitea came from: the same signature under its own name.

https://gogs.io/advancing/webhooks
"""

from __future__ import annotations

from typing import ClassVar

from relay.providers.gitea import Gitea


class Gogs(Gitea):
    """X-Gogs-Signature."""

    name: ClassVar[str] = "gogs"
    keeps_delivery_id: ClassVar[bool] = True
    brands: ClassVar[tuple[str, ...]] = ("Gogs",)
