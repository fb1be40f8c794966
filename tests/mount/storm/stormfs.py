"""Passthrough whose workers hang when they are told to: on SIGVTALRM."""

import signal
import time
from types import FrameType

from ringmount.workers.filesystems.passthrough import Passthrough

HANG = signal.SIGVTALRM


class Hanging(Passthrough):
    """As the built-in one."""

    def start(self) -> None:
        signal.signal(HANG, hang)


def hang(number: int, frame: FrameType | None) -> None:
    """Longer than any request timeout."""
    time.sleep(3600)
