"""uvicorn's HTTP, with a time limit for each request, and its own counts.

An answer has a time limit too, and a request has only one.

uvicorn refuses a malformed body even if the request already has an answer or gets one right after
that. h11 then raises an error. What is refused here never reaches the application, so it is counted
here.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

# for a whole request, of which the largest then needs 0.7 MB per second, and for a client that
# takes nothing of its answer
SECONDS = 60.0
# for a client that takes nothing when the server ends: it must be gone before the server is
AT_THE_END = 4.0


class PatientProtocol(H11Protocol):
    """Closes a connection whose request has not arrived completely after `seconds`."""

    seconds = SECONDS
    _deadline: asyncio.TimerHandle | None = None
    _untaken: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(
            high=0
        )  # else a short answer that is not taken is not seen
        self._watch()

    def refused(self, kind: str) -> None:
        """Called for each request that is refused here: it is "malformed" or "too slow"."""

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        """Watch the next request too, of which a part may have arrived with the last one."""
        super().on_response_complete()
        if self.conn.their_state is h11.SEND_BODY:
            self._watch()

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request, if it has no answer yet, and send no other answer."""
        self.refused("malformed")
        if self.cycle is not None:
            self.cycle.disconnected = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            super().send_400_response(msg)
        else:
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()
        self._taken()

    def shutdown(self) -> None:
        """The server ends: a client that takes nothing has less time from now on."""
        super().shutdown()
        if self._untaken is not None:
            self._taken()
            self._untaken = self.loop.call_later(AT_THE_END, self.transport.abort)

    def pause_writing(self) -> None:
        """The client has not taken what was sent: from now on, it has `seconds` for it."""
        super().pause_writing()
        self._untaken = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """The client takes its answer."""
        super().resume_writing()
        self._taken()

    def _taken(self) -> None:
        if self._untaken is not None:
            self._untaken.cancel()
            self._untaken = None

    def _watch(self) -> None:
        """Start the time limit when a request begins to arrive; stop it when it has arrived."""
        if self.conn.their_state not in (h11.IDLE, h11.SEND_BODY):
            self._stop()
        elif self._deadline is None:
            self._deadline = self.loop.call_later(self.seconds, self._give_up)

    def _give_up(self) -> None:
        if self.conn.their_state is h11.IDLE and self.conn.trailing_data[0]:
            self.refused("too slow")  # a body that does not come is counted as broken off
        self.transport.close()

    def _stop(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
