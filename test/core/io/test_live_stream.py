"""Live streams over HTTP, from a server in this process: newest frame, broken connections, what is refused."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cv2
import numpy as np
import pytest

from elysium_core.cli.app import app
from elysium_core.errors import VideoError
from elysium_core.io.live_stream import StreamRecording, without_password
from elysium_core.io.video import open_video

WIDTH, HEIGHT = 64, 48


def jpeg(number):
    """A picture whose grey value is its number."""
    return cv2.imencode(".jpg", np.full((HEIGHT, WIDTH, 3), number % 256, np.uint8))[1].tobytes()


class Server:
    """Serves motion JPEG: each connection sends so many frames, then ends, or stalls until the server is closed.

    Attributes:
        frames: Frames sent, over all connections.
        connections: How often it was connected to.
    """

    def __init__(self, a_connection=10**9, *, stalls=False, period_s=0.01):
        self.frames = self.connections = 0
        self.done = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                server.connections += 1
                if self.path == "/missing":
                    self.send_error(404)
                elif self.path.startswith("/file"):
                    self._send_file()
                elif self.path == "/list.m3u8":
                    self._send(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile:///etc/hostname\n")
                else:
                    self._send_frames()

            def _send(self, data):
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def _send_file(self):
                self._send(b"".join(b"--frame\r\nContent-Type: image/jpeg\r\n\r\n" + jpeg(n) for n in range(9)))

            def _send_frames(self):
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                sent = 0
                try:
                    while sent < a_connection and not server.done.wait(period_s):
                        data = jpeg(server.frames)
                        head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n"
                        self.wfile.write(head.encode() + data + b"\r\n")
                        server.frames, sent = server.frames + 1, sent + 1
                except OSError:
                    return  # the reader has gone
                if stalls:
                    server.done.wait()

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def address(self, path="/live"):
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def close(self):
        self.done.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def serving(*arguments, **options):
    server = Server(*arguments, **options)
    try:
        yield server
    finally:
        server.close()


def read(address, **options):
    return StreamRecording(address, **{"timeout_s": 5.0, "patience_s": 20.0, "backoff_s": 0.01, **options})


def test_the_newest_frame_is_the_next_one_and_numbers_tell_what_was_left_out():
    with serving() as server, open_video(server.address(), allow_network=True) as recording:
        assert (recording.is_live, recording.width, recording.height) == (True, WIDTH, HEIGHT)
        frames = iter(recording)
        first = next(frames)
        shown = server.frames
        while server.frames < shown + 30:
            threading.Event().wait(0.01)
        next(frames)  # may have waited since then
        later = next(frames)
        assert later.index >= first.index + 10
        assert later.stamp_ns > first.stamp_ns
        assert later.image.mean() == pytest.approx(later.index, abs=3), "frame and number belong together"
        assert recording.read == 3


def test_a_stream_that_breaks_off_is_opened_again_and_numbers_go_on():
    with serving(4) as server, read(server.address()) as recording:
        indices = [frame.index for frame, _ in zip(recording, range(12), strict=False)]
        assert indices == sorted(set(indices))
        assert server.connections > 1
        assert dict(recording.problems()).keys() == {"STREAM_RECONNECTED"}
        assert recording.skipped == 0


def test_a_stream_that_stalls_for_too_long_has_ended_with_a_reason():
    with serving(8, stalls=True) as server:
        recording = read(server.address(), timeout_s=0.2, patience_s=0.1)
        with pytest.raises(VideoError) as caught, recording:
            list(recording)
    assert caught.value.code == "STREAM_LOST"
    assert server.address() in str(caught.value)


def test_what_is_no_live_stream_is_refused_by_a_code():
    with serving(0) as server:
        port = server.address("").rpartition(":")[2]
        refused = {
            server.address("/missing"): "STREAM_OPEN",
            server.address(): "STREAM_OPEN",
            server.address("/file"): "STREAM_FILE",
            server.address("/list.m3u8"): "STREAM_OPEN",
            f"rtsp://127.0.0.1:{port}/live": "STREAM_OPEN",
            "ftp://127.0.0.1/live": "STREAM_SCHEME",
            "http:///live": "STREAM_SCHEME",
        }
        told = {}
        for address in refused:
            with pytest.raises(VideoError) as caught:
                read(address, timeout_s=1.0)
            told[address] = caught.value.code
    assert told == refused
    with pytest.raises(VideoError) as caught:
        read(server.address())
    assert caught.value.code == "STREAM_OPEN", "nobody listens any more"


def test_the_network_is_used_only_if_it_is_allowed():
    with serving() as server:
        with pytest.raises(VideoError) as caught:
            open_video(server.address())
        assert server.connections == 0
    assert server.address() in str(caught.value)


def test_a_stream_is_tracked_from_the_command_line(invoke):
    with serving() as server:
        outcome = invoke(
            app, "track", server.address(), "--model", "identity", "--box", "0.1,0.1,0.5,0.5", "--limit", 3, "--json"
        )
    assert outcome.code == 0
    assert [line["box"] for line in outcome.lines] == [[0.1, 0.1, 0.5, 0.5]] * 3


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rtsp://admin:s3cret@10.0.0.5/main", "rtsp://10.0.0.5/main"),
        ("rtsp://admin:s3@cret@10.0.0.5/main", "rtsp://10.0.0.5/main"),
        ("http://host/live?token=s3cret", "http://host/live"),
    ],
)
def test_passwords_are_not_shown(address, shown):
    assert without_password(address) == shown
