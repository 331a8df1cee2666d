"""What a run was begun with: broken off, it goes on with that, or not at all."""

import json
from collections.abc import Mapping

from enpar.errors import UserError
from enpar.storage import Location


class Begun:
    """Remembers what a run of several sittings reads.

    Args:
        folder: where it is remembered; it goes away when the run is done.
        setting: the setting that names what is read.
        output: the output folder, to speak of.
    """

    def __init__(self, folder: Location, setting: str, output: Location) -> None:
        self._folder, self._setting, self._output = folder, setting, output
        self._file = folder / "input.json"

    def check(self, read: Mapping[str, str]) -> None:
        """See that it is still what the run was begun with, if it was begun.

        Args:
            read: what tells each file from another of its name, such as its size.

        Raises:
            UserError: a file has come, gone or changed.
        """
        if not self._file.kind():
            return
        before = json.loads(self._file.read_text())
        for name in sorted(before.keys() | read.keys()):
            if before.get(name) != read.get(name):
                was, now = (values.get(name, "absent") for values in (before, read))
                raise UserError(
                    f"{self._setting}: {name} has changed since {self._output} was begun ({was}, now {now}); "
                    "put it back, name another output, or set overwrite=true to begin anew"
                )

    def keep(self, read: Mapping[str, str]) -> None:
        """Remember it."""
        if self._folder.local:
            self._folder.local.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(read))
