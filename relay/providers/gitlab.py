"""GitLab and what signs its webhooks: GitLab.com and self-managed.

https://docs.gitlab.com/user/project/integrations/webhooks/
"""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import ClassVar

from relay.errors import Malformed, Unauthorized
from relay.events.event import Event, Ignored
from relay.providers.gitlab_payload import parse_merge_request, parse_push, system_hook_event
from relay.providers.provider import Headers, ReadsFiles, always
from relay.providers.signatures import (
    HmacKeys,
    any_equal,
    checked_secrets,
    fingerprint,
    from_base64,
)

TOKEN_PREFIX = "whsec_"  # noqa: S105


class GitLab:
    """X-Gitlab-Token, which is the secret itself, or a signing token's signature.

    A request that carries a signature is judged by it alone where signing tokens are configured:
    a wrong signature is not rescued by a right token. During the move from one to the other a
    source may list both; once every webhook signs, drop ``secrets``.
    """

    name: ClassVar[str] = "gitlab"
    keeps_delivery_id: ClassVar[bool] = True

    def __init__(
        self, secrets: Sequence[str], signing_tokens: Sequence[str] = (), tolerance: float = 300
    ) -> None:
        """See Provider."""
        if not secrets and not signing_tokens:
            raise ValueError("gitlab needs secrets or signing_tokens")
        self._secrets = checked_secrets(secrets)
        self._signing = [signing_key(token) for token in signing_tokens]
        self._keys = HmacKeys(self._signing)
        self._tolerance = tolerance

    def require(self, headers: Headers) -> None:
        """See Provider.require. A token vouches without a body, so a wrong one ends it here."""
        if self._signs(headers):
            return
        if not self._secrets:
            raise Unauthorized("webhook-signature is missing: the webhook has no signing token set")
        if "X-Gitlab-Token" not in headers:
            raise Unauthorized("X-Gitlab-Token is missing: the webhook has no secret token set")
        if not any_equal(self._secrets, headers["X-Gitlab-Token"]):
            raise Unauthorized("X-Gitlab-Token is none of the configured secrets")

    def verify(self, headers: Headers, body: bytes, now: float) -> str:
        """See Provider.verify."""
        self.require(headers)
        if self._signs(headers):
            self._verify_signature(headers, body, now)
        return fingerprint(body)

    def delivery_id(self, headers: Headers) -> str:
        """See Provider.delivery_id. GitLab sends the same id as Idempotency-Key and as webhook-id,
        and signs the latter. Whoever sends a captured request again can change the former.
        """
        if self._signs(headers):
            return headers.get("webhook-id", "")
        return headers.get("Idempotency-Key") or headers.get("webhook-id", "")

    def parse(
        self, headers: Headers, body: bytes, reads_files: ReadsFiles = always
    ) -> Event | Ignored:
        """See Provider.parse."""
        name = headers.get("X-Gitlab-Event", "")
        if name == "System Hook":
            name = system_hook_event(body)
        match name:
            case "Push Hook" | "Tag Push Hook":
                return parse_push(body, reads_files)
            case "Merge Request Hook":
                return parse_merge_request(body)
            case "":
                raise Malformed("X-Gitlab-Event is missing")
            case _:
                return Ignored(f"{name[:64]} events never deploy")

    def sign(self, body: bytes, kind: str, delivery_id: str, now: float) -> dict[str, str]:
        """See Provider.sign."""
        events = {"pull_request": "Merge Request Hook", "tag": "Tag Push Hook"}
        headers = {
            "Content-Type": "application/json",
            "X-Gitlab-Event": events.get(kind, "Push Hook"),
            "Idempotency-Key": delivery_id,
        }
        if self._secrets:
            headers["X-Gitlab-Token"] = self._secrets[0].decode()
        if self._signing:
            stamp = str(int(now))
            [signature, *_] = self._keys.digests(f"{delivery_id}.{stamp}.".encode(), body)
            headers |= {
                "webhook-id": delivery_id,
                "webhook-timestamp": stamp,
                "webhook-signature": f"v1,{base64.b64encode(signature).decode()}",
            }
        return headers

    def _signs(self, headers: Headers) -> bool:
        return bool(self._signing) and "webhook-signature" in headers

    def _verify_signature(self, headers: Headers, body: bytes, now: float) -> None:
        sent_id = headers.get("webhook-id", "")
        stamp = headers.get("webhook-timestamp", "")
        signatures = [
            from_base64(value.removeprefix("v1,"))
            for value in headers["webhook-signature"].split()[:16]
            if value.startswith("v1,")
        ]
        signed = f"{sent_id}.{stamp}.".encode(errors="surrogateescape")
        if not self._keys.vouch(signatures, signed, body):
            raise Unauthorized("no configured signing token made this signature")
        if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
            raise Unauthorized("webhook-timestamp is not a number of seconds")
        away = abs(now - int(stamp))
        if away > self._tolerance:
            raise Unauthorized(
                f"webhook-timestamp is {math.ceil(away)} s away from now, "
                f"more than the {self._tolerance:g} s allowed"
            )


def signing_key(token: str) -> bytes:
    """The HMAC key of a ``whsec_…`` token. Raises ValueError without quoting it."""
    key = from_base64(token.removeprefix(TOKEN_PREFIX)) if token.startswith(TOKEN_PREFIX) else b""
    if len(key) < 16:
        raise ValueError("a signing token is whsec_ and at least 16 bytes in base64")
    return key
