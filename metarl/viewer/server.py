"""A server of the page that only this machine reaches, and that no one can ask to share it."""

from __future__ import annotations

import contextlib
import functools
import io
import ipaddress
import re
import socket
import warnings
from collections.abc import Iterator

import viser
from viser import _messages
from websockets.asyncio import server as websockets_server

from metarl.core.errors import UserError

LOOPBACK = "127.0.0.1"
PORT = 8080
_TRIES = 100
_OWN_PAGES = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?")


def serve(host: str = LOOPBACK, port: int = PORT) -> viser.ViserServer:
    """Start the server, on the first free port from `port` on; on any free one for 0.

    On this machine's loopback, pages of other sites that a browser here shows are refused. Elsewhere anyone who reaches
    it can steer the robots, of which a warning tells. The share button, and what would answer a client that asks for a
    public address all the same, are gone.
    """
    local = _is_loopback(host)
    if not local:
        warnings.warn(
            f"the page is served on {host}: whoever reaches this machine sees it and can use it, without a password",
            stacklevel=2,
        )
    free = _free_port(host, port) if port else 0
    with _own_pages_only() if local else contextlib.nullcontext(), contextlib.redirect_stdout(io.StringIO()):
        server = viser.ViserServer(host=host, port=free, verbose=False, label="metarl")
    for asked in (_messages.ShareUrlRequest, _messages.ShareUrlDisconnect):
        server._websock_server.unregister_handler(asked)
    server.request_share_url = _refuse  # type: ignore[method-assign]
    return server


@contextlib.contextmanager
def _own_pages_only() -> Iterator[None]:
    """Have the server that is made within refuse what another site's page sends, which a browser would let it send."""
    usual = websockets_server.serve
    websockets_server.serve = functools.partial(usual, origins=[_OWN_PAGES, None])  # type: ignore[assignment,misc]
    try:
        yield
    finally:
        websockets_server.serve = usual  # type: ignore[misc]


def address(server: viser.ViserServer) -> str:
    """What to open in a browser."""
    host = server.get_host()
    return f"http://{LOOPBACK if host == '0.0.0.0' else host}:{server.get_port()}"


def _refuse(verbose: bool = True) -> None:
    raise UserError("a view is not shared: forward its port over ssh instead")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _free_port(host: str, port: int) -> int:
    if not 0 < port < 2**16:
        raise UserError(f"port = {port} is out of range: it must be in [1, 65535]")
    for number in range(port, min(port + _TRIES, 2**16)):
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, number))
            except PermissionError:
                raise UserError(f"port {number} may not be used: take one from 1024 on") from None
            except socket.gaierror as error:
                raise UserError(f"there is no address '{host}' here: {error.strerror}") from None
            except OSError as error:
                if error.errno == 99:  # the address is not this machine's
                    raise UserError(f"'{host}' is not an address of this machine") from None
                continue
        return number
    raise UserError(f"no port from {port} to {port + _TRIES - 1} is free on {host}")
