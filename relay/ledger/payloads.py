"""The payload of a delivery as the ledger keeps it for people, secrets redacted."""

from __future__ import annotations

from pathlib import Path

import msgspec

from relay.errors import NoSuchThing
from relay.ledger.payload_files import PayloadFiles
from relay.ledger.transaction import Reader
from relay.ledger.zstd import unpack

MOST_BODY = 33_554_432
"""Bytes of a payload that are unpacked at most."""

NOT_KEPT = "the payload is not kept: {}"
DELETED = "the payload is not kept any more: retention has deleted it"
DAMAGED = "the payload cannot be read: {}"


async def read_payload(reader: Reader, folder: Path, number: int) -> bytes:
    """Return the payload of a delivery, as JSON. ``folder`` is the ledger's. Blocking where it is a
    file. Raises NoSuchThing with the reason where there is none."""
    row = await reader.row("payload_of_delivery", {"delivery": number})
    if row is None:
        raise NoSuchThing(f"no delivery has the id delivery-{number}")
    if row["codec"] is None:
        raise NoSuchThing(DELETED)
    if row["codec"] == "none":
        raise NoSuchThing(NOT_KEPT.format(bytes(row["body"]).decode(errors="replace")))
    try:
        packed = bytes(row["body"])
        if row["codec"] == "file":
            packed = PayloadFiles(folder).read(packed.decode())
        payload = unpack(packed, MOST_BODY)
        msgspec.json.decode(payload)
    except OSError as error:
        raise NoSuchThing(DAMAGED.format(error.strerror)) from None
    except (ValueError, RecursionError):
        raise NoSuchThing(DAMAGED.format("it is damaged")) from None
    return payload
