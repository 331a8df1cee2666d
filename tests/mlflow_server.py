"""A real MLflow server in a process of its own, and a way to it that can be cut."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PATIENCE = 120.0  # seconds


class Server:
    """`mlflow server` on 127.0.0.1 over a database in a folder; it can be killed, and started again at its port."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self._port = free.getsockname()[1]
        self._folder = folder
        self.uri = f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        database, artifacts = f"sqlite:///{self._folder}/server.db", f"{self._folder}/artifacts"
        options = ["--backend-store-uri", database, "--artifacts-destination", artifacts, "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self._port), *options]
        log = (self._folder / "server.log").open("a")
        environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        # In a session of its own: its workers are killed with it.
        self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
        until(self._answers, f"no MLflow server; see {log.name}")

    def kill(self) -> None:
        os.killpg(self._process.pid, 9)
        self._process.wait(PATIENCE)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "server.log").read_text()[-2000:]
        try:
            return urllib.request.urlopen(f"{self.uri}/health", timeout=5).status == 200
        except OSError:
            return False


@contextmanager
def server(folder: Path) -> Iterator[Server]:
    running = Server(folder)
    running.start()
    try:
        yield running
    finally:
        running.kill()


@contextmanager
def way_to(target: str, port: int = 0, lost: Callable[[str, bytes], bool] = lambda path, body: False) -> Iterator[str]:
    """The URI of a proxy that forwards every request, and loses the answers to those that `lost` picks."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {"Content-Type": self.headers.get("Content-Type", "application/json")}
            request = urllib.request.Request(target + self.path, body or None, headers, method=self.command)
            try:
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    status, content = answer.status, answer.read()
            except urllib.error.HTTPError as error:
                status, content = error.code, error.read()
            if lost(self.path, body):
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_PUT = do_PATCH = do_GET  # noqa: N815

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{proxy.server_address[1]}"
        finally:
            proxy.shutdown()
            thread.join()


def until(condition: Callable[[], object], otherwise: str) -> None:
    """Wait for a condition."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


def loads(body: bytes) -> dict:
    return json.loads(body or b"{}")
