"""Commands that run beside a test: waiting for them to come so far, and a port for them."""

import socket
import subprocess
from collections.abc import Callable
from typing import Any


def until(process: "subprocess.Popen[str]", met: Callable[[], Any]) -> Any:
    """Wait for something to come true while a command runs; returns it."""
    while not (found := met()):
        assert process.poll() is None, process.communicate()
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
