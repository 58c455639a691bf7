"""``GET /v1/stream``: the messages of the protocol over a WebSocket.

One task reads a message, takes its steps and sends the answer. Only a message that has to wait gets company:
while it waits another task reads on, so that a full queue or ``ack: durable`` holds up neither other actors
nor a ping. So answers may overtake each other, and carry the ``id`` of their message.

Everything is bounded: unanswered records by the credit, unanswered bytes by not reading on, a client that
does not read by a time limit, and one that is silent by another.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable
from typing import Any

import anyio
from msgspec import UNSET

from stoker.exits import single_error
from stoker.protocol import (
    CloseCode,
    ErrorFrame,
    PongFrame,
    ProtocolError,
    StreamMessage,
    Welcome,
    WelcomeFrame,
    decode_hello,
    decode_stream,
    encode_json,
    encode_msgpack,
)
from stoker.protocol.encoding import Format
from stoker.protocol.messages import PROTOCOL
from stoker.service.asgi import Event, Receive, Scope, Send
from stoker.service.auth import Gate, check_steps, token_of
from stoker.service.credit import Unanswered
from stoker.service.holders import Holder
from stoker.service.hosting import Hosted
from stoker.service.refusals import refusal_of
from stoker.service.specs import spec_of
from stoker.service.steps import StepService
from stoker.service.suspending import after_turns, begun, finished
from stoker.service.tokens import Principal

_NO_SPAN = contextlib.nullcontext()
_REASON_BYTES = 123
"""The most that a close frame holds."""


class _Gone(Exception):
    """The connection is over."""


class Connection:
    """One WebSocket, from its handshake to its end.

    Args:
        hosted: the service that it is a connection to.
        gate: who is let in.
        scope, receive, send: of ASGI.
    """

    _principal: Principal
    _service: StepService

    def __init__(self, hosted: Hosted, gate: Gate, scope: Scope, receive: Receive, send: Send) -> None:
        self._hosted = hosted
        self._limits = hosted.limits
        self._gate = gate
        self._scope = scope
        self._raw_receive = receive
        self._raw_send = send
        self._format: Format = "json"
        self._holder: Holder | None = None
        self._tasks = anyio.create_task_group()
        self._code = int(CloseCode.NORMAL)
        self._n_sends_waiting = 0
        self._is_read = True
        self._parked: list[anyio.Event] = []
        self._is_closing = False
        self._unanswered = Unanswered(hosted.limits)
        self._span: Callable[[], contextlib.AbstractContextManager[Any]] | None = None
        self.heard_at: float = time.monotonic()
        """When its last message came."""

    async def run(self) -> int:
        """Answer the client until one of the two closes the connection; return the code of that."""
        await self._raw_receive()  # websocket.connect
        offered: list[str] = self._scope.get("subprotocols", [])
        accepted = PROTOCOL if PROTOCOL in offered else None
        await self._raw_send({"type": "websocket.accept", "subprotocol": accepted})
        try:
            with single_error():
                async with self._tasks:
                    try:
                        holder = await self._greet()
                    except (_Gone, OSError):
                        self._leave()
                    except Exception as error:  # noqa: BLE001 - answered, and logged if nobody expects it
                        await self._end(refusal_of(error))
                    else:
                        await self._serve(holder)
        finally:
            self._hosted.connections.discard(self)
            if self._holder is not None:
                self._holder.release()
        return self._code

    def close_soon(self, code: int, reason: str) -> None:
        """Close the connection, from any task."""
        self._tasks.start_soon(self._close, code, reason)

    async def _end(self, refusal: ProtocolError) -> None:
        """Say why, and close."""
        try:
            await self._answer(ErrorFrame(refusal.problem()), self._format)
            await self._close(refusal.close or CloseCode.BAD_HELLO, refusal.detail)
        except (_Gone, OSError):
            self._leave()

    async def _close(self, code: int, reason: str) -> None:
        if self._is_closing:
            return
        self._is_closing = True
        self._code = int(code)
        text = reason.encode(errors="replace")[:_REASON_BYTES].decode(errors="ignore")
        with contextlib.suppress(OSError):  # the client was faster
            await self._send({"type": "websocket.close", "code": int(code), "reason": text})
        self._leave()

    def _leave(self) -> None:
        self._tasks.cancel_scope.cancel()

    # The beginning --------------------------------------------------------------------------------

    async def _greet(self) -> Holder:
        """Let the client in, and answer its hello.

        Raises:
            ProtocolError: It is not let in.
            _Gone: It did not wait for that.
        """
        connections, limits = self._hosted.connections, self._limits
        if len(connections) >= limits.connections:
            most = f"{len(connections)} are open; close one, or try again later"
            raise ProtocolError("too-many-connections", most, retry_after=5)
        connections.add(self)
        token = token_of(self._scope) if self._gate.has_tokens else None
        principal = None
        if token is not None or not self._gate.has_tokens:
            principal = self._gate.authenticated(token)
        data: bytes | str = b""
        with anyio.move_on_after(limits.hello_s) as waiting:
            data, self._format = await self._receive()
        if waiting.cancelled_caught:
            late = f"no hello came within {limits.hello_s:g} s"
            raise ProtocolError("hello-timeout" if principal else "unauthenticated", late)
        hello = decode_hello(data, self._format, limits.depth).hello
        principal = principal or self._gate.authenticated(hello.token)
        principal.require("act", "observe")
        service = await self._hosted.service_for(hello.spaces, hello.spaces_digest)
        self._holder = holder = Holder(
            principal.name,
            prefix=principal.actors,
            is_connection=True,
            take_over=hello.take_over,
            on_fenced=self._on_fenced,
        )
        self._principal, self._service = principal, service
        if (spans := self._hosted.spans) is not None:
            self._span = spans.messages(self._scope["path"], self._scope["headers"])
        named = [] if isinstance(hello.take_over, bool) else hello.take_over
        standing = await service.take_over(holder, named)
        welcome = Welcome(limits.credit, limits.credit_per_actor, spec_of(self._hosted), standing)
        await self._answer(WelcomeFrame(welcome), self._format)
        return holder

    def _on_fenced(self, actor: str) -> None:
        if (
            self._holder is None or not self._holder.held
        ):  # else the others go on, and the next record of this one is refused
            refusal = ProtocolError("fenced", f"actor {actor!r} was taken over by another connection")
            self._tasks.start_soon(self._end, refusal)

    # Messages -------------------------------------------------------------------------------------

    async def _serve(self, holder: Holder) -> None:
        """Read messages and answer them, alone unless a message waits."""
        try:
            while True:
                if not await self._serve_one(holder):
                    self._parked.append(parked := anyio.Event())
                    await parked.wait()
        except (_Gone, OSError):
            self._leave()

    async def _serve_one(self, holder: Holder) -> bool:
        """Answer the next message; False: another task reads on."""
        data, form = await self._receive()
        self.heard_at = time.monotonic()
        message: StreamMessage | None = None
        is_waiting = False
        answer: Any
        try:
            message = decode_stream(data, form, self._limits.depth)
            if message.ping is not UNSET:
                answer = PongFrame(message.ping)
            else:
                if not self._principal.is_unlimited:
                    check_steps(self._gate, self._principal, message)
                self._unanswered.check(message.steps)
                with _NO_SPAN if self._span is None else self._span():
                    step = self._service.step(message, holder)
                    is_over, answer = begun(step)
                    if not is_over and answer is None:
                        is_over, answer = await after_turns(step)
                    if not is_over:
                        is_waiting = True
                        self._unanswered.add(message.steps, len(data))
                        self._read_on(holder)
                        answer = await finished(step, answer)
        except Exception as error:
            refusal = refusal_of(error)
            answer = ErrorFrame(refusal.problem(UNSET if message is None else message.id))
            if refusal.close is not None:
                await self._answer(answer, form)
                await self._close(refusal.close, refusal.detail)
                raise _Gone from error
        finally:
            if message is not None and is_waiting:
                self._unanswered.remove(message.steps, len(data))
        await self._answer(answer, form)
        if not is_waiting:
            return True
        was_read, self._is_read = self._is_read, True
        return not was_read

    def _read_on(self, holder: Holder) -> None:
        """A message waits: let another task read on, while what waits is not too large."""
        self._is_read = not self._unanswered.is_full
        if not self._is_read:
            return
        if self._parked:
            self._parked.pop().set()
        else:
            self._tasks.start_soon(self._serve, holder)

    async def _receive(self) -> tuple[bytes | str, Format]:
        """The next message, as it came.

        Raises:
            _Gone: There is none.
        """
        event = await self._raw_receive()
        if event["type"] != "websocket.receive":
            self._code = event.get("code") or 1005
            raise _Gone
        text: str | None = event.get("text")
        data: bytes | str = event["bytes"] if text is None else text
        if len(data) > self._limits.message_bytes:  # a server that knows the limit has closed before
            await self._end(
                ProtocolError("too-large", f"a message has at most {self._limits.message_bytes:,} bytes")
            )
            raise _Gone
        return data, "msgpack" if text is None else "json"

    async def _answer(self, answer: Any, form: Format) -> None:
        if form == "json":
            await self._send({"type": "websocket.send", "text": encode_json(answer).decode()})
        else:
            await self._send({"type": "websocket.send", "bytes": encode_msgpack(answer)})

    async def _send(self, event: Event) -> None:
        """Send; if the client does not read for ``send_s``, the connection ends without an answer."""
        sending: Any = self._raw_send(event)
        is_over, awaited = begun(sending)
        if is_over:
            return
        scope = self._tasks.cancel_scope
        if not self._n_sends_waiting:
            scope.deadline = anyio.current_time() + self._limits.send_s
        self._n_sends_waiting += 1
        await finished(sending, awaited)
        self._n_sends_waiting -= 1
        if not self._n_sends_waiting:
            scope.deadline = math.inf
