"""Many commands as one argument of a script, as MessagePack for cmsgpack in Redis's Lua.

To take hundreds of arguments apart costs the client more than all the rest of a round trip.
"""

from __future__ import annotations

from typing import Any

import msgspec

pack = msgspec.msgpack.Encoder().encode


def argument(value: Any) -> str | int | msgspec.Raw:
    """One argument of a command, as the client would send it by itself.

    Raises TypeError for what the client would refuse.
    """
    if isinstance(value, str) or type(value) is int:
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, bytes):
        return packed(value)
    raise TypeError(f"Redis takes no {type(value).__name__}")


def packed(data: bytes) -> msgspec.Raw:
    """Bytes for cmsgpack, which takes them as MessagePack's str 32 and knows no bin type.

    https://github.com/msgpack/msgpack/blob/master/spec.md#str-format-family
    """
    return msgspec.Raw(b"\xdb" + len(data).to_bytes(4, "big") + data)
