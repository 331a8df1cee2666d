"""A headless Chromium, told what to do over a pipe (the DevTools protocol): no driver and no package is needed."""

import fcntl
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60.0  # seconds for any answer
# Chromium reads file 3 and writes file 4. They are put there in a process of its own, in which nothing else has them.
WIRE = "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
FREE = 10  # the first file number that the pipes may have, so that 3 and 4 are none of theirs


class Page:
    """One page, and all that it wrote to its console or raised."""

    def __init__(self, commands: int, answers: int, allowed: tuple[str, ...]) -> None:
        self._commands, self._answers, self._rest, self._allowed = commands, answers, b"", allowed
        self._count, self._session = 0, None
        self._loaded = False
        self.complaints: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        self._count += 1
        message = {"id": self._count, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, place: Path | str) -> None:
        """Load a file or a URL, and wait for it."""
        self._loaded = False
        self.call("Page.navigate", url=place.as_uri() if isinstance(place, Path) else place)
        while not self._loaded:
            self._note(self._read())

    def evaluate(self, expression: str):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str):
        """The value of a JavaScript expression once it is true."""
        end = time.monotonic() + PATIENCE
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end, f"{expression} stays {value!r}"
            time.sleep(0.05)
        return value

    @contextmanager
    def inside(self):
        """Within the one frame of the page that is a process of its own, as a sandboxed one is."""
        end = time.monotonic() + PATIENCE
        while len(frames := self._frames()) != 1:  # its process comes up after its element
            assert time.monotonic() < end, f"the page has {len(frames)} frames"
            time.sleep(0.05)
        (frame,) = frames
        outside = self._session
        self._session = self.call("Target.attachToTarget", targetId=frame["targetId"], flatten=True)["sessionId"]
        try:
            yield self
        finally:
            self._session = outside

    def _frames(self) -> list[dict]:
        frames = [target for target in self.call("Target.getTargets")["targetInfos"] if target["type"] == "iframe"]
        return [frame for frame in frames if not frame["url"].startswith("chrome")]  # as in the browser's first tab

    def click(self, selector: str) -> None:
        """Press the mouse on the middle of an element, as a person would."""
        box = self.evaluate(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); "
            "e.scrollIntoView({block: 'center', behavior: 'instant'}); "
            "const r = e.getBoundingClientRect(); return [r.left + r.width / 2, r.top + r.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def size(self, width: int, height: int) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def _read(self) -> dict:
        end = time.monotonic() + PATIENCE
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))
            chunk = os.read(self._answers, 1 << 16) if ready else b""
            assert chunk, "the browser does not answer"
            self._rest += chunk
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)

    def _note(self, event: dict) -> None:
        method, parameters = event.get("method"), event.get("params", {})
        if method == "Page.loadEventFired":
            self._loaded = True
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and parameters["type"] in ("error", "warning", "assert"):
            self.complaints.append(str(parameters["args"]))
        elif method == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not parameters["request"]["url"].startswith(self._allowed):
            self.complaints.append(f"asks the network for {parameters['request']['url']}")


@contextmanager
def chromium(profile: Path, allowed: tuple[str, ...] = ("file:",)) -> Iterator[Page]:
    """A page in a browser of its own; `profile` is an empty folder, `allowed` begins what it may ask for."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    assert program, "no browser: install chromium (`apt-get install chromium`), or run `make test`, which needs none"
    theirs_in, commands = _pipe()
    answers, theirs_out = _pipe()

    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-pipe"]
    command = [program, *flags, f"--user-data-dir={profile}"]
    silent = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    process = subprocess.Popen(
        [sys.executable, "-c", WIRE, str(theirs_in), str(theirs_out), *command],
        pass_fds=(theirs_in, theirs_out),
        **silent,
    )
    for end in (theirs_in, theirs_out):
        os.close(end)
    try:
        yield Page(commands, answers, allowed)
    finally:
        process.terminate()
        process.wait(PATIENCE)
        for end in (commands, answers):
            os.close(end)


def _pipe() -> tuple[int, int]:
    """A pipe whose file numbers begin at `FREE`."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, FREE) for end in ends)
    for end in ends:
        os.close(end)
    return moved
