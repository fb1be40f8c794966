"""A file's contents: sparse, so that holes take no memory, and copied once on their way in or out.

The file is cut into chunks of 64 KiB, and a chunk that was never written is not there. A chunk is a
bytearray of whole pages, shorter than 64 KiB where only its start was written, so that a small file takes
one page. The rules that a change must keep: what lies in a chunk beyond the file's size is zero, so that
growing the file shows zeros; the chunks' lengths are what was taken from `Space`.
"""

import errno
from bisect import bisect_left
from collections.abc import Iterator

from ringmount.workers.filesystems.memory.space import PAGE, Space

CHUNK = 1 << 16
MAX_SIZE = (1 << 63) - 1
"""loff_t's maximum; the kernel refuses larger offsets."""

_ZEROS = memoryview(bytes(CHUNK))


def whole_pages(count: int) -> int:
    """`count` bytes, rounded up to pages."""
    return -(-count // PAGE) * PAGE


def check_end(end: int) -> None:
    """Raises OSError EFBIG for a file that would end there."""
    if end > MAX_SIZE:
        raise OSError(errno.EFBIG, "beyond the largest file")


class Chunks:
    """The contents of one file. `size` is the file's; `allocated` the bytes that its chunks take."""

    __slots__ = ("_chunks", "_order", "_space", "allocated", "size")

    def __init__(self, space: Space) -> None:
        self.size = 0
        self.allocated = 0
        self._space = space
        self._chunks: dict[int, bytearray] = {}
        self._order: list[int] | None = []
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
        """Writes as far as there is space and returns the bytes written. Raises OSError ENOSPC if none."""
        done = 0
        while done < len(data):
            index, start = divmod(offset + done, CHUNK)
            end = self._grow(index, min(CHUNK, start + len(data) - done))
            if end <= start:
                break
            memoryview(self._chunks[index])[start:end] = data[done : done + end - start]
            done += end - start
        if done:
            self.size = max(self.size, offset + done)
        elif len(data):
            raise OSError(errno.ENOSPC, "the filesystem's size is used up")
        return done

    def resize(self, size: int) -> None:
        """truncate(2): what is cut off is gone, what is added is a hole."""
        if size < self.size:
            self.punch(size, MAX_SIZE - size)
        self.size = size

    def allocate(self, offset: int, length: int) -> None:
        """Takes memory for a range, so that writes to it cannot fail.

        Raises OSError ENOSPC, with nothing taken.
        """
        end = offset + length
        if length - self.allocated > self._space.free:
            # Sorted out here, because counting what a range of exabytes lacks takes as long.
            raise OSError(errno.ENOSPC, "the filesystem's size is used up")
        ends = [(index, min(CHUNK, end - index * CHUNK)) for index in range(offset // CHUNK, -(-end // CHUNK))]
        lacking = sum(max(0, whole_pages(stop) - len(self._chunks.get(index, b""))) for index, stop in ends)
        if lacking > self._space.free:
            raise OSError(errno.ENOSPC, "the filesystem's size is used up")
        for index, stop in ends:
            self._grow(index, stop)

    def punch(self, offset: int, length: int) -> None:
        """Makes a range read as zeros, and gives back the pages at chunks' ends that it covers."""
        for index, start, end in self._overlaps(offset, offset + length):
            chunk = self._chunks[index]
            if end >= len(chunk) > whole_pages(start):
                self._shrink(index, whole_pages(start))
            if (end := min(end, len(chunk))) > start:
                memoryview(chunk)[start:end] = _ZEROS[: end - start]

    def zero(self, offset: int, length: int) -> None:
        """Makes a range read as zeros, and takes memory for it.

        Raises OSError ENOSPC, with nothing changed.
        """
        self.allocate(offset, length)
        for index, start, end in self._overlaps(offset, offset + length):
            memoryview(self._chunks[index])[start:end] = _ZEROS[: end - start]

    def seek_data(self, offset: int) -> int:
        """Where the next data starts, at `offset` or after it. Raises OSError ENXIO if there is none."""
        index, start = divmod(offset, CHUNK)
        if start < len(self._chunks.get(index, b"")) and offset < self.size:
            return offset
        if self._order is None:
            self._order = sorted(self._chunks)
        at = bisect_left(self._order, index + 1)
        if at == len(self._order) or self._order[at] * CHUNK >= self.size:
            raise OSError(errno.ENXIO, "no data there")
        return self._order[at] * CHUNK

    def seek_hole(self, offset: int) -> int:
        """Where the next hole starts, at `offset` or after it; one is at the file's end.

        Raises OSError ENXIO past the end.
        """
        if offset >= self.size:
            raise OSError(errno.ENXIO, "past the end")
        index = offset // CHUNK
        while len(self._chunks.get(index, b"")) == CHUNK:
            index += 1
        end = index * CHUNK + len(self._chunks.get(index, b""))
        return min(max(offset, end), self.size)

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

    def _grow(self, index: int, length: int) -> int:
        """Makes a chunk `length` bytes long if it is shorter, as far as there is space.

        Returns how far it may be filled.
        """
        chunk = self._chunks.get(index)
        have = len(chunk) if chunk is not None else 0
        lacking = whole_pages(length) - have
        if lacking <= 0:
            return length
        lacking = min(lacking, self._space.free // PAGE * PAGE)
        if lacking <= 0:
            return have
        self._space.take(lacking)
        self.allocated += lacking
        if chunk is None:
            self._chunks[index] = bytearray(lacking)
            self._order = None
        else:
            chunk += _ZEROS[:lacking]
        return min(length, have + lacking)

    def _shrink(self, index: int, length: int) -> None:
        """Cuts a chunk to `length` bytes, whole pages; nothing remains of it at 0."""
        chunk = self._chunks[index]
        freed = len(chunk) - length
        del chunk[length:]
        self._space.take(-freed)
        self.allocated -= freed
        if not chunk:
            del self._chunks[index]
            self._order = None
