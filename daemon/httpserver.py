"""A small HTTP server for one page, /metrics: for Prometheus, on a port or socket of this machine.

The rule a change must keep: whoever gets here may be hostile. A client has a small buffer and a deadline, there are
never more than a few, and what one causes ends its own connection and nothing else.
"""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from http import HTTPStatus

log = logging.getLogger(__name__)

MAX_CLIENTS = 16
MAX_HEAD = 8192
"""Bytes of a request, which has no body."""
DEADLINE = 5.0
"""Seconds that a client may take for all."""
FRESH = 0.25
"""Seconds for which one answer is good for all who ask: asking in a loop costs others little."""

Page = Callable[[str], tuple[str, bytes]]
"""From the Accept header to a content type and a body."""


class Server:
    """Answers by `page`. Where more ask than there is room for, whoever is slow makes room for who comes."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._clients: list[asyncio.Task[None]] = []
        """The oldest first."""
        self._made: dict[str, tuple[float, str, bytes]] = {}

    async def serve(self, listening: socket.socket) -> None:
        """For ever."""
        server = await asyncio.start_server(self._take, sock=listening, limit=MAX_HEAD, backlog=MAX_CLIENTS)
        async with server:
            await server.serve_forever()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._clients) >= MAX_CLIENTS:
            self._clients.pop(0).cancel()
        self._clients.append(task)
        try:
            async with asyncio.timeout(DEADLINE):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(self.reply(head))
                await writer.drain()
                writer.close()
                await writer.wait_closed()
        except asyncio.LimitOverrunError:
            writer.write(_response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE))
            writer.close()
        except (OSError, EOFError, asyncio.CancelledError):  # it hung up, took too long (TimeoutError), or made room
            writer.transport.abort()
        except Exception:
            log.exception("a client of the metrics got no answer")
            writer.transport.abort()
        finally:
            if task in self._clients:
                self._clients.remove(task)

    def reply(self, head: bytes) -> bytes:
        """The whole answer to a request, whatever bytes that is."""
        lines = head.decode("latin-1").split("\r\n")
        method, _, rest = lines[0].partition(" ")
        target, _, protocol = rest.partition(" ")
        if not protocol.startswith("HTTP/1."):
            return _response(HTTPStatus.BAD_REQUEST)
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, headers=("Allow: GET, HEAD",))
        if target.partition("?")[0] not in ("/metrics", "/"):
            return _response(HTTPStatus.NOT_FOUND)
        fields = (line.partition(":") for line in lines[1:])
        accept = ",".join(value.strip() for name, _, value in fields if name.lower() == "accept")
        kind, body = self._fresh("openmetrics" if "application/openmetrics-text" in accept else "", accept)
        return _response(HTTPStatus.OK, kind, body, is_head=method == "HEAD")

    def _fresh(self, key: str, accept: str) -> tuple[str, bytes]:
        made = self._made.get(key)
        if made is None or time.monotonic() - made[0] > FRESH:
            kind, body = self._page(accept)
            made = self._made[key] = (time.monotonic(), kind, body)
        return made[1], made[2]


def _response(
    status: HTTPStatus,
    kind: str = "text/plain; charset=utf-8",
    body: bytes | None = None,
    headers: tuple[str, ...] = (),
    is_head: bool = False,
) -> bytes:
    body = f"{status.phrase}\n".encode() if body is None else body
    lines = [
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (b"" if is_head else body)
