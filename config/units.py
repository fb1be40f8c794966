"""The notations of a mount's file: sizes, CPU lists, durations.

Every parser takes the text as a person wrote it and raises ValueError("what is wrong: what to write");
every `format_` function writes what its parser reads back as the same value.
"""

import re
from collections.abc import Iterable

from ringmount.config.errors import quoted

MAX_CPUS = 8192
"""More CPUs than any Linux kernel is built for (NR_CPUS of x86-64); bounds what "0-999999999" can cost."""

SIZE_PATTERN = "^[0-9]{1,19} ?(B|[KMGT](iB)?)?$(?!\n)"
CPULIST_PATTERN = "^ *[0-9]{1,5}(-[0-9]{1,5})?( *, *[0-9]{1,5}(-[0-9]{1,5})?)* *$(?!\n)"
SECONDS_PATTERN = "^[0-9]{1,15}([.][0-9]{1,9})? ?(ms|s|min|h|d)?$(?!\n)"

_SIZES = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_SECONDS = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}


def parse_size(text: str) -> int:
    """Bytes in `text`: a whole number with B, KiB, MiB, GiB or TiB, or K, M, G, T for the same."""
    if not re.search(SIZE_PATTERN, text):
        raise ValueError(f"{quoted(text)} is not a size: write bytes, or a whole number with KiB, MiB, GiB or TiB")
    digits = re.match("[0-9]+", text)
    assert digits
    return int(digits[0]) * _SIZES[text[digits.end() :].strip().removesuffix("iB")]


def format_size(size: int) -> str:
    """`size` bytes in the largest unit that divides it: "1MiB", "4097B"."""
    if size:
        for unit in "TGMK":
            if size % _SIZES[unit] == 0:
                return f"{size // _SIZES[unit]}{unit}iB"
    return f"{size}B"


def parse_cpulist(text: str) -> tuple[int, ...]:
    """The CPUs in `text`, a list such as "0-3,5" (as in /sys/devices/system/cpu/online), in its order.

    A CPU that is named twice comes out twice; empty text is no CPU.
    """
    if not text.strip():
        return ()
    if not re.search(CPULIST_PATTERN, text.removesuffix("\n")):
        raise ValueError(f"{quoted(text)} is not a list of CPUs: write numbers and ranges, such as 0-3,5")
    cpus: list[int] = []
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if int(last or first) < int(first):
            raise ValueError(f"{quoted(text)} is not a list of CPUs: the range {part.strip()} runs backwards")
        if int(last or first) >= MAX_CPUS:
            raise ValueError(f"{quoted(text)} is not a list of CPUs: a CPU's number is below {MAX_CPUS}")
        cpus.extend(range(int(first), int(last or first) + 1))
        if len(cpus) > MAX_CPUS:
            raise ValueError(f"{quoted(text)} is not a list of CPUs: it names more than {MAX_CPUS}")
    return tuple(cpus)


def format_cpulist(cpus: Iterable[int]) -> str:
    """`cpus` as a list of numbers and ranges, in their order: "0-3,5"."""
    runs: list[list[int]] = []
    for cpu in cpus:
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def parse_seconds(text: str) -> float:
    """Seconds in `text`: a number with ms, s, min, h or d, or without a unit for seconds."""
    if not re.search(SECONDS_PATTERN, text):
        raise ValueError(f"{quoted(text)} is not a duration: write seconds, or a number with ms, s, min, h or d")
    number = text.rstrip("adhimns ")
    unit = text[len(number) :].strip()
    # A quotient is the nearest float to the decimal number; a product with 0.001 is not.
    return float(number) / 1000 if unit == "ms" else float(number) * _SECONDS[unit]
