"""The messages between page and server.

Both sides send JSON texts with a field ``type``, over one WebSocket. Pictures are binary: the length of a JSON header
(4 bytes, big endian), that header (:class:`FrameHeader`), and a JPEG. So boxes always belong to the picture that they
come with.

The page begins with ``hello`` and gets ``welcome``. Each picture is answered by ``ack``; the server keeps two pictures
on their way and then sends the newest one it has, so a slow page gets fewer pictures, never older ones. All other
requests carry a number, and the ``reply`` has the same one.

The page is not trusted: what does not fit these models is refused as a whole, with code ``MESSAGE_INVALID``.
"""

from __future__ import annotations

import struct
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from elysium_core.errors import ElysiumError

VERSION = 1
"""Version of this protocol; a page of another version loads itself again."""

LARGEST_MESSAGE_BYTES = 16 * 1024
"""Longest message that the server takes from a page."""

MOST_PAGES = 32
"""Pages that a server serves at the same time."""

_WORDS = 512
_NAME = 256

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Corners = tuple[Fraction, Fraction, Fraction, Fraction]
# Stamps travel as text: JavaScript's numbers hold 53 bits.
Stamp = Annotated[str, Field(pattern=r"^[0-9]{1,19}$")]
TargetId = Annotated[str, Field(pattern=r"^[0-9]{1,10}$")]
Camera = Annotated[str, Field(max_length=_NAME)]
Number = Annotated[int, Field(ge=0, le=2**31)]


class MessageError(ElysiumError, ValueError):
    """A message of a page does not follow the protocol."""

    code = "MESSAGE_INVALID"


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _FromPage(_Message):
    """A request of a page; JSON has no tuples, so lists are taken for them."""

    model_config = ConfigDict(extra="forbid", frozen=True)


# -------------------------------------------------------------------------------------------------- from page to server


class Hello(_FromPage):
    """The first message: the token if the server wants one, and the camera that was shown before a break."""

    type: Literal["hello"]
    version: int
    token: Annotated[str, Field(max_length=_NAME)] = ""
    camera: Camera = ""


class Ack(_FromPage):
    """The page has drawn a picture and takes another."""

    type: Literal["ack"]
    sequence: Number


class ChooseCamera(_FromPage):
    """Show another camera."""

    type: Literal["camera"]
    request: Number
    camera: Camera


class TrackRequest(_FromPage):
    """Follow something: words, a box, a click, or words with one of the two.

    Attributes:
        expression: Words; may be empty.
        box: Corners as fractions of the frame, or None.
        point: Position of a click as fractions of the frame, or None.
        stamp: Stamp of the frame that was drawn on; "0" = the newest.
        add: Keep the other targets.
    """

    type: Literal["track"]
    request: Number
    expression: Annotated[str, Field(max_length=_WORDS)] = ""
    box: Corners | None = None
    point: tuple[Fraction, Fraction] | None = None
    stamp: Stamp = "0"
    add: bool = True

    @model_validator(mode="after")
    def _names_one_thing(self) -> TrackRequest:
        if self.box is not None and self.point is not None:
            raise ValueError("give a box or a point, not both")
        return self


class StopRequest(_FromPage):
    """Stop one target, or all of the camera."""

    type: Literal["stop"]
    request: Number
    target: TargetId | Literal[""] = ""


class DescribeRequest(_FromPage):
    """Describe a target."""

    type: Literal["describe"]
    request: Number
    target: TargetId


class AskRequest(_FromPage):
    """Ask about what the camera sees."""

    type: Literal["ask"]
    request: Number
    question: Annotated[str, Field(min_length=1, max_length=_WORDS)]


class PauseRequest(_FromPage):
    """Stop looking at frames, or go on."""

    type: Literal["pause"]
    request: Number
    paused: bool


Request = ChooseCamera | TrackRequest | StopRequest | DescribeRequest | AskRequest | PauseRequest
FromPage = Hello | Ack | Request

_FROM_PAGE: TypeAdapter[FromPage] = TypeAdapter(Annotated[FromPage, Field(discriminator="type")])


def read_message(text: str) -> FromPage:
    """Read a message of a page.

    Raises:
        MessageError: It is too long, not JSON, or not one of the messages above.
    """
    if len(text) > LARGEST_MESSAGE_BYTES:
        raise MessageError(f"a message of {len(text)} characters is too long; {LARGEST_MESSAGE_BYTES} are the most")
    try:
        return _FROM_PAGE.validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the message"
        raise MessageError(f"{place}: {first['msg']}") from error


# -------------------------------------------------------------------------------------------------- from server to page


State = Literal["TRACKED", "UNCERTAIN", "LOST", "REMOVED", "STALE"]


class TargetView(_Message):
    """A target in one frame.

    Attributes:
        id: Its number.
        words: The words that were given; empty for a box or a click.
        state: ``TRACKED``, ``UNCERTAIN``, ``LOST``, ``REMOVED`` or ``STALE``.
        box: Corners as fractions of the frame; None if there is none. Of a LOST target, the last one.
        score: 0..1.
        reason: Why there is no certain box; may be empty.
        text: The latest description, or the model's own words by which it follows a box; may be empty.
    """

    id: str
    words: str
    state: State
    box: tuple[float, float, float, float] | None
    score: float
    reason: str = ""
    text: str = ""


class CameraStatus(_Message):
    """What is running, and how fast; zero where nothing is known.

    Attributes:
        type: Always ``status``.
        model: Name of the model.
        device: Where it runs.
        paused: Frames are not looked at.
        input_hz: Frames that arrive [Hz].
        output_hz: Frames with a result [Hz].
        latency_p50_ms: Arrival to result, median [ms].
        latency_p95_ms: 95th percentile of the same [ms].
        received: Frames that arrived.
        dropped: Frames that were skipped for a newer one.
        fault: Code of what is wrong now; empty if nothing is.
        fault_text: The sentence about it.
        position: Place in a recording, 0..1; None for a camera.
    """

    type: Literal["status"] = "status"
    model: str = ""
    device: str = ""
    paused: bool = False
    input_hz: float = 0.0
    output_hz: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    received: int = 0
    dropped: int = 0
    fault: str = ""
    fault_text: str = ""
    position: float | None = None


class Welcome(_Message):
    """Answer to ``hello``."""

    type: Literal["welcome"] = "welcome"
    version: int = VERSION
    source: str
    cameras: tuple[str, ...]
    camera: str


class Reply(_Message):
    """Answer to a request: ``code`` and ``text`` say what is wrong unless ``ok``."""

    type: Literal["reply"] = "reply"
    request: int
    ok: bool
    code: str = ""
    text: str = ""
    target: str = ""


class Notice(_Message):
    """Something is wrong that the page did not ask about."""

    type: Literal["notice"] = "notice"
    code: str
    text: str


class FrameHeader(_Message):
    """What comes before the JPEG of a picture.

    Attributes:
        type: Always ``frame``.
        sequence: Number of the picture, for ``ack``; it grows.
        camera: Name of the camera.
        stamp: Stamp [ns], as text.
        width: Width of the frame [px]; the JPEG may be smaller.
        height: Height of the frame [px].
        results: The tracker has looked at this frame.
        targets: The targets in it.
    """

    type: Literal["frame"] = "frame"
    sequence: int
    camera: str
    stamp: str
    width: int
    height: int
    results: bool
    targets: tuple[TargetView, ...]


def pack_picture(header: FrameHeader, jpeg: bytes) -> bytes:
    """Return the binary message of a picture."""
    text = header.model_dump_json().encode()
    return struct.pack(">I", len(text)) + text + jpeg


def unpack_picture(message: bytes) -> tuple[FrameHeader, bytes]:
    """Return header and JPEG of a picture; for programs that read the stream.

    Raises:
        MessageError: It is not such a message.
    """
    try:
        (length,) = struct.unpack_from(">I", message)
        header = FrameHeader.model_validate_json(message[4 : 4 + length])
    except (struct.error, ValidationError) as error:
        raise MessageError("the binary message is not a picture of the viewer") from error
    return header, message[4 + length :]
