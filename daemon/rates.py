"""How much a mount does per second: what its workers' counters were a moment ago, kept for whoever asks."""

from collections import deque
from typing import Any

from ringmount.daemon.loop import Loop
from ringmount.daemon.mount import Mount

INTERVAL = 5.0
"""Seconds between two looks."""
LOOKS = 3
"""That are kept: a rate is over the last 10 to 15 seconds."""
LEAST = 0.5
"""Seconds that make a rate."""

COUNTED = ("requests", "errors", "bytes_read", "bytes_written")


class Rates:
    """Looks from when the mount is ready."""

    def __init__(self, mount: Mount, loop: Loop) -> None:
        self._mount = mount
        self._looks: deque[tuple[float, list[int]]] = deque(maxlen=LOOKS)
        loop.duties.append(self._look)

    def _look(self, now: float) -> float | None:
        if not self._mount.is_ready:
            return None
        if not self._looks or now >= self._looks[-1][0] + INTERVAL:
            self._looks.append((now, self._totals()))
        return self._looks[-1][0] + INTERVAL

    def _totals(self) -> list[int]:
        records = [self._mount.arena.worker(index) for index in range(self._mount.arena.workers)]
        return [sum(getattr(record, name) for record in records) for name in COUNTED]

    def at(self, now: float) -> dict[str, Any] | None:
        """What was done per second over the last `seconds`; None before it can be said. `now` is time.monotonic()."""
        if not self._looks or now < self._looks[0][0] + LEAST:
            return None
        then, before = self._looks[0]
        seconds = now - then
        after = self._totals()
        each = {name: (b - a) / seconds for name, a, b in zip(COUNTED, before, after, strict=True)}
        return {"seconds": seconds, **each}
