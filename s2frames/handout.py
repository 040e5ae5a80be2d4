"""Handing out what a read session has: a message is given to its user, or is still to come.

A message is fetched, which may take a codec, a callback or a signal that raises, and then handed
out, which is the last thing that happens: `hand_out` gives it and says that it is taken, or does
neither. Until then it stands in the `ReadProtocol`, and comes with the next fetch. That is why
those two stand in one line: no signal comes in between.
"""

from __future__ import annotations

from typing import Generic, TypeVar, cast

from s2frames.errors import CodecError, LocalProtocolError
from s2frames.events import FrameReceived, FramesReceived
from s2frames.inbox import Inbox, ReceivedMessage
from s2frames.read import ReadEvent, ReadProtocol

__all__ = ["Handout"]

T = TypeVar("T")


class Handout(Generic[T]):
    """The messages of a session on their way to its user.

    An adapter fetches; when nothing has arrived and the session is not over it does what the
    session asks for, and fetches again. Then it hands out, with nothing in between and nothing
    after it that waits or may raise.

    A callback that raises was told all the same; the error is the user's, and what comes after is
    still to come.

    Args:
        protocol: the session.
        inbox: what its events are to the user.
    """

    def __init__(self, protocol: ReadProtocol, inbox: Inbox[T]) -> None:
        self._protocol = protocol
        self._inbox = inbox
        # The message that is fetched, and the frame that it is the message of.
        self._message: T
        self._frame: FrameReceived | None = None
        # The messages that are fetched together, and how many events they come from.
        self._messages: list[T] = []
        self._num_events = 0

    # One by one

    def fetch(self) -> bool:
        """Have the next message ready to be handed out; False when none has arrived.

        Raises as `Inbox.take`.
        """
        while (event := self._protocol.next_event()) is not None:
            if type(event) is FrameReceived:
                if event is not self._frame:
                    self._message = self._decode(event)
                    self._frame = event
                return True
            self._act(event)
        return False

    def hand_out(self) -> T:
        """The message that is fetched."""
        message = self._message
        self._forget()
        self._protocol.event_taken(); return message  # fmt: skip  # noqa: E702

    def hand_out_received(self) -> ReceivedMessage[T]:
        """The message that is fetched, with all that is known of it."""
        if self._frame is None:
            raise LocalProtocolError("no message was fetched")
        received = self._inbox.describe(self._frame, self._message)
        self._forget()
        self._protocol.event_taken(); return received  # fmt: skip  # noqa: E702

    def _forget(self) -> None:
        self._frame = None
        del self._message

    def _decode(self, frame: FrameReceived) -> T:
        try:
            return self._inbox.decode(frame)
        except CodecError:
            self._protocol.events_taken(1); raise  # fmt: skip  # noqa: E702

    def _act(self, event: ReadEvent) -> None:
        """Raise or tell what is to be raised or told for an event without a message."""
        error = self._inbox.error_for(event)
        if error is not None:
            self._protocol.events_taken(1); raise error  # fmt: skip  # noqa: E702
        self._protocol.events_taken(1)
        self._inbox.tell(event)

    # Many at a time

    def fetch_many(self) -> bool:
        """Have the next messages ready to be handed out together. As `fetch`.

        What raises comes first or is left for the next call, so that nothing raises after a message
        was decoded for nothing.
        """
        while events := self._protocol.next_events():
            messages: list[T] = []
            num_events = 0
            try:
                for event in events:
                    if type(event) is FramesReceived:
                        messages += self._inbox.decode_many(event.payloads)
                    elif type(event) is FrameReceived:
                        messages.append(self._inbox.decode(event))
                    elif not self._inbox.is_silent(cast("ReadEvent", event)):
                        break
                    num_events += 1
            except CodecError:
                if not num_events:
                    self._go_through(events[0])
                    continue
            if messages:
                self._messages, self._num_events = messages, num_events
                return True
            if num_events:
                self._protocol.events_taken(num_events)
            else:
                self._act(cast("ReadEvent", events[0]))
        return False

    def hand_out_many(self) -> list[T]:
        """The messages that are fetched."""
        messages, self._messages = self._messages, []
        self._protocol.events_taken(self._num_events); return messages  # fmt: skip  # noqa: E702

    def _go_through(self, event: ReadEvent | FramesReceived) -> None:
        """One of the event's messages cannot be decoded: find out which."""
        if type(event) is FramesReceived:
            self._protocol.split_event()
        elif type(event) is FrameReceived:
            self._decode(event)
