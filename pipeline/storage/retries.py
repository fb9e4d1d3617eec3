"""Trying again: what fails for a moment on the way to an object store is asked for a few times more, ever later."""

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from apache_beam.io.aws.clients.s3.messages import S3ClientError

DELAYS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Seconds before the second try, the third, and so on; without jitter, so that a run can be repeated."""

_STATUSES = {408, 429, 500, 502, 503, 504}
# S3 has words of its own, some of them with status 400, or within an answer whose status is 200.
_CODES = {"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"}
# Libraries have errors of their own for broken connections, and none is installed everywhere: known by their names.
_NAMES = {
    "ConnectTimeoutError",
    "ConnectionClosedError",
    "EndpointConnectionError",
    "IncompleteReadError",
    "ProtocolError",
    "ReadTimeoutError",
    "ResponseStreamingError",
}
_LONGEST_REASON = 200

_log = logging.getLogger(__name__)
Result = TypeVar("Result")


class GivenUpError(S3ClientError, OSError):
    """It failed every time; of Beam's type, with a code that does not let Beam begin all over."""

    def __init__(self, message: str) -> None:
        """Keeps the message.

        Args:
            message: what could not be reached, and why.
        """
        super().__init__(message, 0)

    def __str__(self) -> str:
        return str(self.message)


def retried(path: str, call: Callable[[], Result]) -> Result:
    """Calls until it works, waits longer each time, and gives up after a handful of tries.

    Args:
        path: what it is about, for messages.
        call: may be called any number of times.

    Returns:
        What it returns.

    Raises:
        GivenUpError: it failed every time for reasons that mostly pass.
        Exception: what it raises for any other reason, the first time.
    """
    for delay in DELAYS:
        try:
            return call()
        except Exception as error:
            if not is_transient(error):
                raise
            _log.warning("%s: %s; trying again in %g s", path, _reason(error), delay)
        time.sleep(delay)
    try:
        return call()
    except Exception as error:
        if not is_transient(error):
            raise
        raise GivenUpError(f"{path}: {_reason(error)} ({len(DELAYS) + 1} tries in {sum(DELAYS):g} s)") from error


def is_transient(error: BaseException) -> bool:
    """Whether an error is of the kind that passes: broken connections, timeouts, servers that are down or busy.

    What is not there or not allowed (404, 403) stays so.
    """
    if isinstance(error, GivenUpError):
        return False
    if isinstance(error, S3ClientError) and error.code is None and error.__context__ is not None:
        return is_transient(error.__context__)  # Beam passes on the text and the status, and here there was none
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        return status in _STATUSES or response.get("Error", {}).get("Code") in _CODES
    code = getattr(error, "code", None)
    if code is not None:
        return code in _STATUSES or code in _CODES
    names = {cls.__name__ for cls in type(error).__mro__}
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & _NAMES)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:_LONGEST_REASON] or type(error).__name__
