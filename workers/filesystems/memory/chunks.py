"""A file's contents: sparse, so that holes take no memory, and copied once on their way in or out.

The file is cut into chunks of 64 KiB, and a chunk that was never written is not there. A chunk is a bytearray of
whole pages, shorter than 64 KiB where only its start was written, so that a small file takes one page. It knows which
of its pages were written, so that holes are found page by page; but memory, and so `Space`, is taken for its length.

The rules that a change must keep: pages that were not written, and what lies beyond the file's size, are zeros; the
chunks' lengths are what was taken from `Space`; the last page of a chunk was written.
"""

import errno
from bisect import bisect_right
from collections.abc import Iterator

from ringmount.workers.filesystems.memory.space import PAGE, Space

CHUNK = 16 * PAGE
MAX_SIZE = (1 << 63) - 1
"""loff_t's maximum; the kernel refuses larger offsets."""

_ZEROS = memoryview(bytes(CHUNK))


def check_end(end: int) -> None:
    """Raises OSError EFBIG for a file that would end there."""
    if end > MAX_SIZE:
        raise OSError(errno.EFBIG, "beyond the largest file")


def no_space() -> OSError:
    return OSError(errno.ENOSPC, "the filesystem's size is used up")


def pages_up_to(end: int) -> int:
    """How many pages hold `end` bytes."""
    return -(-end // PAGE)


class Chunk(bytearray):
    """A part of a file; bit n of `written` stands for page n. Offsets are the chunk's own."""

    __slots__ = ("written",)

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.written = 0

    def mark(self, start: int, end: int) -> int:
        """Marks the pages that a range touches as written. Returns how many were not."""
        touched = (1 << pages_up_to(end)) - (1 << start // PAGE)
        new = touched & ~self.written
        self.written |= new
        return new.bit_count()

    def blank(self, start: int, end: int) -> int:
        """Zeroes a range, and marks the pages that lie in it as not written. Returns how many were."""
        if start < (filled := min(end, len(self))):
            memoryview(self)[start:filled] = _ZEROS[: filled - start]
        first, last = pages_up_to(start), end // PAGE
        inner = (1 << last) - (1 << first) if first < last else 0
        gone = self.written & inner
        self.written ^= gone
        return gone.bit_count()

    def data_from(self, start: int) -> int | None:
        """Where written bytes start, at `start` or after it."""
        rest = self.written >> start // PAGE
        if rest & 1 or not rest:
            return start if rest else None
        return (start // PAGE + (rest & -rest).bit_length() - 1) * PAGE

    def hole_from(self, start: int) -> int:
        """Where bytes start that were not written, at `start` or after it; CHUNK if there are none."""
        rest = self.written >> start // PAGE
        ones = (~rest & (rest + 1)).bit_length() - 1
        return max(start, (start // PAGE + ones) * PAGE)


class Chunks:
    """The contents of one file. `size` is the file's; `allocated` the bytes in pages that were written."""

    __slots__ = ("_chunks", "_order", "_space", "allocated", "size")

    def __init__(self, space: Space) -> None:
        self.size = 0
        self.allocated = 0
        self._space = space
        self._chunks: dict[int, Chunk] = {}
        self._order: list[int] | None = None
        """The chunks' numbers in order; None when it has to be made anew."""

    def read(self, offset: int, buffer: memoryview) -> int:
        """Fills `buffer` and returns the bytes filled, fewer only at the file's end."""
        total = max(0, min(len(buffer), self.size - offset))
        done = 0
        while done < total:
            index, start = divmod(offset + done, CHUNK)
            end = min(CHUNK, start + total - done)
            chunk = self._chunks.get(index, b"")
            there = max(start, min(end, len(chunk)))
            at = done + there - start
            buffer[done:at] = memoryview(chunk)[start:there]
            done += end - start
            if at < done:
                buffer[at:done] = _ZEROS[: done - at]
        return total

    def write(self, offset: int, data: memoryview) -> int:
        """Writes as far as there is space and returns the bytes written. Raises OSError ENOSPC if there is none."""
        done = 0
        while done < len(data):
            index, start = divmod(offset + done, CHUNK)
            chunk = self._grown(index, min(CHUNK, start + len(data) - done))
            end = min(len(chunk), start + len(data) - done)
            if end <= start:
                self._tidy(index)
                break
            # Not chunk[start:end] = ...: a bytearray makes a copy of a memoryview that it is assigned.
            memoryview(chunk)[start:end] = data[done : done + end - start]
            self.allocated += PAGE * chunk.mark(start, end)
            done += end - start
        if done:
            self.size = max(self.size, offset + done)
        elif len(data):
            raise no_space()
        return done

    def resize(self, size: int) -> None:
        """truncate(2): what is cut off is gone, what is added is a hole."""
        if size < self.size:
            self.punch(size, MAX_SIZE - size)
        self.size = size

    def allocate(self, offset: int, length: int) -> None:
        """Takes memory for a range, so that writes to it cannot fail; its pages count as written.

        Raises OSError ENOSPC, with nothing taken.
        """
        if length - self._taken() > self._space.free:
            # Sorted out here, because counting what a range of exabytes lacks takes as long.
            raise no_space()
        end = offset + length
        parts = [
            (index, max(0, offset - index * CHUNK), min(CHUNK, end - index * CHUNK))
            for index in range(offset // CHUNK, -(-end // CHUNK))
        ]
        lacking = (PAGE * pages_up_to(stop) - len(self._chunks.get(index, b"")) for index, _, stop in parts)
        if sum(count for count in lacking if count > 0) > self._space.free:
            raise no_space()
        for index, start, stop in parts:
            self.allocated += PAGE * self._grown(index, stop).mark(start, stop)

    def punch(self, offset: int, length: int) -> None:
        """Makes a range read as zeros, and its pages holes. Gives back what no page needs that stays."""
        for index, start, end in self._overlaps(offset, offset + length):
            self.allocated -= PAGE * self._chunks[index].blank(start, end)
            self._tidy(index)

    def zero(self, offset: int, length: int) -> None:
        """Makes a range read as zeros, and takes memory for it.

        Raises OSError ENOSPC, with nothing changed.
        """
        self.allocate(offset, length)
        for index, start, end in self._overlaps(offset, offset + length):
            self._chunks[index].blank(start, end)
            self._chunks[index].mark(start, end)

    def seek_data(self, offset: int) -> int:
        """Where the next data starts, at `offset` or after it. Raises OSError ENXIO if there is none."""
        index, start = divmod(offset, CHUNK)
        chunk = self._chunks.get(index)
        within = None if chunk is None else chunk.data_from(start)
        if within is None:
            if self._order is None:
                self._order = sorted(self._chunks)
            at = bisect_right(self._order, index)
            if at < len(self._order):
                index = self._order[at]
                within = self._chunks[index].data_from(0)
        if within is None or index * CHUNK + within >= self.size:
            raise OSError(errno.ENXIO, "no data there")
        return index * CHUNK + within

    def seek_hole(self, offset: int) -> int:
        """Where the next hole starts, at `offset` or after it; one is at the file's end.

        Raises OSError ENXIO past the end.
        """
        if offset >= self.size:
            raise OSError(errno.ENXIO, "past the end")
        index, start = divmod(offset, CHUNK)
        while (chunk := self._chunks.get(index)) is not None and (start := chunk.hole_from(start)) == CHUNK:
            index += 1
            start = 0
        return min(index * CHUNK + start, self.size)

    def copy(self, offset: int, source: "Chunks", source_offset: int, length: int) -> int:
        """Copies from `source`, holes as holes, and returns the bytes copied.

        They are fewer at the source's end and where space runs out. Ranges of one file may not overlap.
        Raises OSError ENOSPC if nothing could be copied.
        """
        length = max(0, min(length, source.size - source_offset))
        piece = memoryview(bytearray(min(length, CHUNK)))
        done = 0
        while done < length:
            count, is_hole = source._run(source_offset + done, length - done)
            if is_hole:
                self.punch(offset + done, count)
                self.size = max(self.size, offset + done + count)
            else:
                count = source.read(source_offset + done, piece[:count])
                try:
                    count = self.write(offset + done, piece[:count])
                except OSError:
                    if not done:
                        raise
                    break
            done += count
        return done

    def clear(self) -> None:
        """Gives everything back, what is allocated beyond the size included."""
        self.punch(0, MAX_SIZE)
        self.size = 0

    def _run(self, offset: int, limit: int) -> tuple[int, bool]:
        """Length of the data or of the hole at `offset`, at most `limit`, and whether it is a hole."""
        if start_of_hole := self.seek_hole(offset) - offset:
            return min(start_of_hole, limit), False
        try:
            return min(self.seek_data(offset) - offset, limit), True
        except OSError:
            return min(self.size - offset, limit), True

    def _taken(self) -> int:
        """The most that the chunks can have taken."""
        return len(self._chunks) * CHUNK

    def _overlaps(self, offset: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The chunks that a range touches: each one's number, and the range within it."""
        first, last = offset // CHUNK, (end - 1) // CHUNK
        if last - first < len(self._chunks):
            touched = [index for index in range(first, last + 1) if index in self._chunks]
        else:
            touched = [index for index in self._chunks if first <= index <= last]
        for index in touched:
            base = index * CHUNK
            yield index, max(0, offset - base), min(CHUNK, end - base)

    def _grown(self, index: int, length: int) -> Chunk:
        """The chunk, grown to hold `length` bytes, or as many of them as there is space for."""
        chunk = self._chunks.get(index)
        if chunk is None:
            chunk = self._chunks[index] = Chunk(0)
            self._order = None
        lacking = pages_up_to(length) * PAGE - len(chunk)
        if lacking > 0:
            lacking = min(lacking, self._space.free // PAGE * PAGE)
            self._space.take(lacking)
            chunk += _ZEROS[:lacking]
        return chunk

    def _tidy(self, index: int) -> None:
        """Cuts a chunk after its last page that was written; nothing remains of it if there is none."""
        chunk = self._chunks[index]
        keep = chunk.written.bit_length() * PAGE
        self._space.take(keep - len(chunk))
        del chunk[keep:]
        if not chunk:
            del self._chunks[index]
            self._order = None
