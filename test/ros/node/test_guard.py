"""The guard around callbacks: always a reply, never an exception, one line in the log."""

from elysium_core.errors import BoxError
from elysium_ros.node.guard import EventLog, Guard


class Log:
    def __init__(self):
        self.lines = []

    def warning(self, message):
        self.lines.append(message)

    error = warning


def test_an_event_is_logged_at_once_then_with_a_count():
    log, now = Log(), [0.0]
    events = EventLog(log, period_s=5.0, clock=lambda: now[0])
    for _ in range(4):
        events.report("IMG_SHAPE", "odd\n\x1b[31m")
    assert len(log.lines) == 1
    assert log.lines[0].isprintable()
    now[0] = 6.0
    events.report("IMG_SHAPE", "odd")
    assert log.lines[1] == "IMG_SHAPE: odd (3 more since the last line)"
    assert events.counts() == {"IMG_SHAPE": 5}


class Reply:
    success = True
    message = ""
    half_done = False


def test_a_guarded_service_always_replies_with_a_code_and_a_fresh_reply():
    log = Log()
    guard = Guard(EventLog(log))

    def fail(request, response):
        response.half_done = True
        raise request

    expected = guard.service(fail)(BoxError("the box is odd"), Reply())
    assert (expected.success, expected.message, expected.half_done) == (False, "BOX_INVALID: the box is odd", False)
    assert log.lines == [], "a refused request is the caller's business"
    unexpected = guard.service(fail)(KeyError("x"), Reply())
    assert unexpected.message.startswith("INTERNAL: KeyError")
    assert "Traceback" in log.lines[0]


def test_a_guarded_callback_raises_nothing_and_is_silent_while_shutting_down():
    log, ending = Log(), [False]
    guard = Guard(EventLog(log, period_s=0.0), is_shutting_down=lambda: ending[0])

    def fail():
        raise OSError("gone")

    guard.callback(fail)()
    assert len(log.lines) == 1
    ending[0] = True
    guard.callback(fail)()
    assert len(log.lines) == 1
