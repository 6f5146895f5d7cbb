"""The listening socket of a server."""

from __future__ import annotations

import errno
import socket

from relay.errors import CannotListen


def listen(host: str, port: int, *, share: bool) -> socket.socket:
    """Return a listening socket. With ``share`` the kernel spreads connections over all that listen
    on the same port (SO_REUSEPORT, socket(7)). Raises CannotListen, also where a port is taken
    without it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024, reuse_port=share)
    except OSError as error:
        why = "is in use" if error.errno == errno.EADDRINUSE else f"is refused: {error.strerror}"
        raise CannotListen(f"{host}:{port} {why}") from None
