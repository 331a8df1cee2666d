"""A real S3 server (moto's) on 127.0.0.1, which can be made to refuse."""

import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from moto.server import DomainDispatcherApplication, create_backend_app
from pyarrow.fs import FileSystem
from werkzeug.serving import WSGIRequestHandler, make_server

# Any will do for it; where a Ray is started with them in its environment, its workers have them.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "tests", "AWS_SECRET_ACCESS_KEY": "tests", "AWS_EC2_METADATA_DISABLED": "true"}
_FORBIDDEN = b"<Error><Code>AccessDenied</Code><Message>no</Message></Error>"


class Server:
    """A running server with one bucket, `texts`."""

    def __init__(self, port: int) -> None:
        self.endpoint = f"127.0.0.1:{port}"
        self.refuses: Callable[[str, str], bool] = lambda method, path: False
        self.changed: list[str] = []  # the keys that were written, in order

    def uri(self, path: str) -> str:
        return f"s3://{path}?endpoint_override={self.endpoint}&scheme=http"

    def files(self, path: str) -> FileSystem:
        return FileSystem.from_uri(self.uri(path))[0]

    @contextmanager
    def strict(self) -> Iterator[None]:
        """Have it check credentials; it knows none."""
        self._check("0")
        try:
            yield
        finally:
            self._check("inf")

    def _check(self, after: str) -> None:
        headers = {"Content-Type": "text/plain"}
        request = urllib.request.Request(f"http://{self.endpoint}/moto-api/reset-auth", after.encode(), headers)
        urllib.request.urlopen(request, timeout=60).close()


class _Quiet(WSGIRequestHandler):
    def log(self, *_: Any) -> None:
        pass


@contextmanager
def s3_server() -> Iterator[Server]:
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        method, path = environ["REQUEST_METHOD"], f"{environ['PATH_INFO']}?{environ['QUERY_STRING']}"
        if serving.refuses(method, path):
            start("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", str(len(_FORBIDDEN)))])
            return [_FORBIDDEN]
        if method == "POST" and path.endswith("?uploads"):
            serving.changed.append(path.removesuffix("?uploads"))
        return moto(environ, start)

    running = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    serving = Server(running.server_port)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        FileSystem.from_uri(serving.uri("texts") + "&allow_bucket_creation=true")[0].create_dir("texts")
        yield serving
    finally:
        running.shutdown()
        thread.join()
        running.server_close()
