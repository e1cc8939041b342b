"""A small HTTP/1.1 server on loopback with keep-alive, and the control endpoints that every system gets.

Written on plain sockets because the standard library's request handler spends most of its time on parsing
mail headers; it reads what HTTP clients send (Content-Length bodies) and refuses the rest.
"""

import contextlib
import socket
from email.utils import formatdate
from http import HTTPStatus
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, unquote

import msgspec

from tests.sandbox.faults import parse
from tests.sandbox.system import Answer, Part, Request, Row, System, answer

HEAD_LIMIT = 65_536
CONTROL = "/_sandbox/"
PHRASES = {status.value: status.phrase for status in HTTPStatus}


def control(system: System, request: Request) -> Answer:
    """Answers the control endpoints, which need no key, count nowhere and suffer no fault.

    | endpoint | body |
    |---|---|
    | GET stats | |
    | GET state | `kind` (also as `?kind=`) |
    | POST faults | `faults`, a text |
    | POST limit | `per_minute` (Google's also `per_day`), a number or null |
    | POST edit | `kind`; `count` and `seed`, or `ids` and `fields` |
    | POST delete | `kind`; `count` and `seed`, or `ids` |
    | POST add | `kind`; `count`, and `fields` to set in each new row |
    | POST refuse | Google's targets: `values`, and the `code` that records with one of them are refused for |
    | POST mend | Google's targets: `values`, all if not given |
    | POST finish | Data Manager and Google Ads: a `status` and its `reason`, or what it comes to by itself |
    | POST tables | BigQuery: `schema` and `rows` by table, as project.dataset.table |
    | POST queries | BigQuery: the same by the text of a query |

    Without `kind` the system's main rows are meant. What `fields` may name is said by each part's `change`.
    """
    action = request.path.removeprefix(CONTROL)
    try:
        body: dict[str, Any] = msgspec.json.decode(request.body or b"{}", type=dict[str, Any])
        with system.lock:
            match request.method, action:
                case "GET", "stats":
                    return answer(200, system.stats())
                case "GET", "state":
                    return answer(200, {"rows": system.part(request.query.get("kind", body.get("kind"))).rows()})
                case "POST", "faults":
                    system.set_faults(parse(body["faults"], [system.name])[system.name])
                    return answer(200, {"faults": dict(system.faults)})
                case "POST", "limit":
                    most = {name: None if value is None else int(value) for name, value in body.items()}
                    system.limit(**most)
                    return answer(200, most)
                case "POST", "edit" | "delete" | "add":
                    part = system.part(body.get("kind"))
                    named = [part.identity(row) for row in _handled(part, action, body)]
                    return answer(200, {"ids": [each[0] for each in named], "documents": [each[1] for each in named]})
                case "POST", other if other in system.hands:
                    return answer(200, system.hands[other](body))
            return answer(404, {"error": f"there is no {request.method} {request.path}"})
    except (KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
        return answer(400, {"error": f"{type(error).__name__}: {error}"})


def _handled(part: Part, action: str, body: Row) -> list[Row]:
    unknown = body.keys() - {"kind", "count", "seed", "ids", "fields"}
    if unknown or ("ids" in body and ("count" in body or "seed" in body)):
        raise ValueError(f"{action} takes kind, fields, and either ids or count and seed")
    match action:
        case "edit" if "ids" in body:
            return part.change([int(each) for each in body["ids"]], dict(body["fields"]))
        case "delete" if "ids" in body:
            return part.remove([int(each) for each in body["ids"]])
        case "edit" if "fields" not in body:
            return part.edit(int(body["count"]), int(body.get("seed", 1)))
        case "delete" if "fields" not in body:
            return part.delete(int(body["count"]), int(body.get("seed", 1)))
        case "add" if "ids" not in body:
            rows = part.add(int(body["count"]))
            if body.get("fields"):
                rows = part.change([part.identity(row)[0] for row in rows], dict(body["fields"]))
            return rows
    raise ValueError(f"{action} cannot take this: {', '.join(sorted(body))}")


class Server:
    """Serves one system on 127.0.0.1; `stop` closes every connection and waits for its threads."""

    def __init__(self, system: System, port: int = 0) -> None:
        self._system = system
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._connections: dict[socket.socket, Thread] = {}
        self._lock = Lock()
        self._stopping = False
        self._date = (0, b"")
        self._acceptor = Thread(target=self._accept, name=f"sandbox {system.name}", daemon=True)

    @property
    def url(self) -> str:
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        self._stopping = True
        # Closing a listening socket does not wake a thread that waits in accept(); a connection does.
        socket.create_connection(self._listener.getsockname()).close()
        self._acceptor.join()
        self._listener.close()
        with self._lock:
            connections = dict(self._connections)
        for connection, thread in connections.items():
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            thread.join()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self._stopping:
                connection.close()
                return
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            thread = Thread(target=self._serve, args=(connection,), daemon=True)
            with self._lock:
                self._connections[connection] = thread
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        buffer = bytearray()
        try:
            while (keep := self._exchange(connection, buffer)) and not self._stopping:
                pass
            if not keep:
                connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            # The client went away; there is nobody left to tell.
            pass
        finally:
            with self._lock:
                del self._connections[connection]
            connection.close()

    def _exchange(self, connection: socket.socket, buffer: bytearray) -> bool:
        """One request and its answer; False when the connection is to be closed."""
        while (end := buffer.find(b"\r\n\r\n")) < 0:
            chunk = connection.recv(HEAD_LIMIT)
            if not chunk:
                return False
            buffer += chunk
            if len(buffer) > HEAD_LIMIT and b"\r\n\r\n" not in buffer:
                return self._send(connection, Answer(431), keep=False)
        lines = buffer[:end].decode("latin-1").split("\r\n")
        del buffer[: end + 4]
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        length = headers.get("content-length", "0")
        target = lines[0].split(" ")
        if len(target) != 3 or not length.isdecimal():
            return self._send(connection, Answer(400), keep=False)
        if "transfer-encoding" in headers:
            return self._send(connection, Answer(501), keep=False)
        if headers.get("expect", "").lower() == "100-continue":
            connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        while len(buffer) < int(length):
            chunk = connection.recv(1 << 18)
            if not chunk:
                return False
            buffer += chunk
        body = bytes(buffer[: int(length)])
        del buffer[: int(length)]
        path, _, query = target[1].partition("?")
        options = dict(parse_qsl(query, keep_blank_values=True)) if query else {}
        request = Request(target[0], unquote(path) if "%" in path else path, options, headers, body)
        given = self._given(request)
        if given is None:
            return False
        return self._send(connection, given, headers.get("connection", "").lower() != "close")

    def _given(self, request: Request) -> Answer | None:
        if request.path.startswith(CONTROL):
            return control(self._system, request)
        return self._system.answer(request)

    def _send(self, connection: socket.socket, given: Answer, keep: bool) -> bool:
        second = int(self._system.clock())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        entity = f"Content-Type: {given.kind}\r\nContent-Length: {len(given.body)}\r\n"
        head = (
            f"HTTP/1.1 {given.status} {PHRASES.get(given.status, '')}\r\n"
            + ("" if given.status == 204 else entity)
            + "".join(f"{name}: {value}\r\n" for name, value in given.headers)
            + ("" if keep else "Connection: close\r\n")
        ).encode("latin-1")
        connection.sendall(b"%sDate: %s\r\n\r\n%s" % (head, self._date[1], given.body))
        return keep
