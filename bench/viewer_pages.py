"""The viewer beside a node that is measured, with pages that take every picture but draw none.

    python -m bench.viewer_pages http://localhost:8420/ 3

The pages are a process of their own, as browsers are. It says ``ready`` once all of them are connected, and ends on
SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

from elysium_core.viewer.protocol import VERSION, unpack_picture
from elysium_ros.client.node_process import NodeProcess, NodeProcessError
from elysium_ros.client.tracker_client import wait_until

_ADDRESS = re.compile(r"open (http://\S+/)")
_START_S = 60.0
_READY = "ready\n"


@contextmanager
def watching(environment: Mapping[str, str], pages: int) -> Iterator[None]:
    """Run the viewer while the block runs.

    Args:
        environment: Environment of the node that is watched.
        pages: Pages that are open; with 0 the viewer runs and nobody looks.

    Raises:
        ElysiumError: The viewer or the pages could not start.
    """
    with ExitStack() as stack:
        viewer = stack.enter_context(NodeProcess("elysium_ros.viewer.viewer_node", {"port": 0}, dict(environment)))

        def address() -> str:
            found = _ADDRESS.search(viewer.output())
            return found.group(1) if found else ""

        wait_until(lambda: bool(address()), _START_S, "the viewer did not start", check=viewer.check_alive)
        if pages:
            command = [sys.executable, "-m", "bench.viewer_pages", address(), str(pages)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.terminate)
            if process.stdout is None or process.stdout.readline() != _READY:
                raise NodeProcessError(f"{pages} pages could not connect to the viewer at {address()}")
        yield


async def _look(address: str, pages: int) -> None:
    """Open pages and acknowledge all pictures until the process ends."""
    import aiohttp

    async def look(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for message in socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                header, _ = unpack_picture(message.data)
                await socket.send_str(json.dumps({"type": "ack", "sequence": header.sequence}))

    async with aiohttp.ClientSession() as session:
        sockets = [await session.ws_connect(f"{address}ws") for _ in range(pages)]
        for socket in sockets:
            await socket.send_str(json.dumps({"type": "hello", "version": VERSION}))
            await socket.receive()
        sys.stdout.write(_READY)
        sys.stdout.flush()
        await asyncio.gather(*map(look, sockets))


def main(argv: Sequence[str]) -> int:
    """Open pages.

    Args:
        argv: Address of the viewer, and the number of pages.
    """
    asyncio.run(_look(argv[0], int(argv[1])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
