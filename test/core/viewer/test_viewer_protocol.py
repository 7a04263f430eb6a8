from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elysium_core.viewer.protocol import (
    Ack,
    AskRequest,
    FrameHeader,
    Hello,
    MessageError,
    TargetView,
    TrackRequest,
    pack_picture,
    read_message,
    unpack_picture,
)


def test_requests_are_read_as_their_kinds():
    assert read_message('{"type":"hello","version":1,"token":"abc"}') == Hello(type="hello", version=1, token="abc")
    assert read_message('{"type":"ack","sequence":7}') == Ack(type="ack", sequence=7)
    assert isinstance(read_message('{"type":"ask","request":1,"question":"What?"}'), AskRequest)
    track = read_message('{"type":"track","request":2,"box":[0.1,0.2,0.5,0.6],"stamp":"1795893184894697565"}')
    assert isinstance(track, TrackRequest)
    assert track.box == (0.1, 0.2, 0.5, 0.6)
    assert int(track.stamp) == 1795893184894697565  # not rounded, as a number of JavaScript would be


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{",
        '{"type":"shell"}',
        '{"type":"track"}',  # no number
        '{"type":"track","request":-1}',
        '{"type":"track","request":1,"box":[0,0,1]}',
        '{"type":"track","request":1,"box":[0,0,2,1]}',
        '{"type":"track","request":1,"box":[0,0,NaN,1]}',
        '{"type":"track","request":1,"box":[0,0,1,1],"point":[0.5,0.5]}',
        '{"type":"track","request":1,"stamp":"1; rm"}',
        '{"type":"track","request":1,"expression":"' + "x" * 513 + '"}',
        '{"type":"track","request":1,"expression":"\\ud800"}',
        '{"type":"track","request":1,"file":"/etc/passwd"}',  # unknown fields are not passed over
        '{"type":"stop","request":1,"target":"../1"}',
        '{"type":"pause","request":1}',
        '{"type":"ask","request":1,"question":""}',
        "[" * 5000,
        '{"type":"hello","version":1,"token":"' + "x" * 20_000 + '"}',
    ],
)
def test_what_is_not_a_request_is_refused_by_its_code(text: str):
    with pytest.raises(MessageError) as caught:
        read_message(text)
    assert caught.value.code == "MESSAGE_INVALID"
    assert len(str(caught.value)) < 300


@settings(max_examples=25)
@given(
    st.dictionaries(st.sampled_from(["type", "request", "box", "token"]), st.none() | st.floats() | st.text(max_size=9))
)
def test_no_json_ends_the_reader(value):
    with pytest.raises(MessageError):
        read_message(json.dumps(value))


def test_a_picture_comes_back_as_it_was_packed():
    target = TargetView(id="1", words="the cup", state="LOST", box=(0.1, 0.1, 0.2, 0.2), score=0.5, reason="it left")
    header = FrameHeader(sequence=3, camera="front", stamp="5", width=640, height=480, results=True, targets=(target,))
    assert unpack_picture(pack_picture(header, b"\xff\xd8jpeg")) == (header, b"\xff\xd8jpeg")


@pytest.mark.parametrize("message", [b"", b"\0\0", b"\xff\xff\xff\xff{}", b"\0\0\0\2{}"])
def test_other_bytes_are_no_picture(message: bytes):
    with pytest.raises(MessageError):
        unpack_picture(message)
