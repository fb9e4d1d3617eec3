"""What processes that were killed left half written."""

import contextlib
import os
import re
import time

from chaffinch.pipeline.storage.files import is_local
from chaffinch.pipeline.storage.listings import names_below
from chaffinch.pipeline.storage.processes import here, is_alive

_TEMPORARY = re.compile(r"-(?P<process>\d+)-\d+\.partial$")
_WEEK = 7 * 24 * 3600


def remove_leftovers(folder: str) -> None:
    """Removes what processes that were killed on this machine left half written below a folder.

    Those of other machines and containers go when nobody has written to them for a week: nothing tells whether their
    process still lives.
    """
    if not is_local(folder):
        return  # an object appears whole or not at all
    for name in names_below(folder, ".partial"):
        path = os.path.join(folder, name + ".partial")
        match = _TEMPORARY.search(path)
        with contextlib.suppress(OSError):
            ours = match is not None and path[: match.start()].endswith("." + here())
            if match and (
                not is_alive(int(match["process"])) if ours else time.time() - os.path.getmtime(path) > _WEEK
            ):
                os.unlink(path)
