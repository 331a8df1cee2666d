"""Commands that run beside a test: how far they are, what processes are theirs, and a port for them."""

import socket
import subprocess
from collections.abc import Callable
from typing import Any

import psutil


def until(process: "subprocess.Popen[str]", met: Callable[[], Any]) -> Any:
    """Wait for something to come true while a command runs; returns it."""
    while not (found := met()):
        assert process.poll() is None, process.communicate()
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
    return found


def title(process: psutil.Process) -> str:
    """Its command line, or what it calls itself; empty if it has ended."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
