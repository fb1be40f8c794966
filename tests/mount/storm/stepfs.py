"""Passthrough whose workers die where a test wants them to: at the n-th step from the next statfs(2) on.

`arm` beside this module says how and where: "SIGNAL c N" counts STEP()s of the C module (0: not at all), "SIGNAL
python N OPCODE" the lines that are run for a request of that opcode. Whoever takes the file away is armed.
"""

import os
import sys
from pathlib import Path
from types import FrameType
from typing import Any

from ringmount.workers._native import lib
from ringmount.workers.api import Context, NodeId, StatfsLike
from ringmount.workers.engine import HEADER, Engine
from ringmount.workers.filesystems.passthrough import Passthrough

ARM = Path(__file__).with_name("arm")


class Stepping(Passthrough):
    """As the built-in one."""

    def statfs(self, ctx: Context, node: NodeId) -> StatfsLike:
        result = super().statfs(ctx, node)
        taken = ARM.with_name(f"arm-{os.getpid()}")
        try:
            ARM.rename(taken)
        except FileNotFoundError:
            return result
        number, kind, *rest = taken.read_text().split()
        taken.unlink()
        sys.settrace(None)
        if kind == "c":
            lib.rm_die_at(int(rest[0]), int(number))
        else:
            Lines(int(rest[0]), int(rest[1]), int(number)).arm()
        return result


class Lines:
    """Counts lines of Python as the interpreter comes to them."""

    def __init__(self, left: int, opcode: int, number: int) -> None:
        self.left = left
        self.opcode = opcode
        self.number = number
        self.inside = False

    def arm(self) -> None:
        sys.settrace(self.called if self.left else None)

    def called(self, frame: FrameType, event: str, argument: Any) -> Any:
        """A function is entered."""
        if frame.f_code is Engine.serve.__code__:
            engine, index = frame.f_locals["self"], frame.f_locals["index"]
            header = HEADER.unpack(bytes(engine.arena.c.journal[index].header))
            if header[1] != self.opcode:
                return None
            self.inside = True
            return self.line_of_serve
        return self.line if self.inside else None

    def line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            self.left -= 1
            if not self.left:
                os.kill(os.getpid(), self.number)
        return self.line

    def line_of_serve(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "return":
            self.inside = False
            sys.settrace(None)
            return None
        self.line(frame, event, argument)
        return self.line_of_serve
