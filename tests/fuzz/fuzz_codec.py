"""Fuzz target: any bytes, taken for a request that was read from /dev/fuse, give a result or a DecodeError.

    python tests/fuzz/fuzz_codec.py -max_total_time=60 build/fuzz tests/fuzz/corpus

needs atheris (the extra `fuzz`) and takes libFuzzer's options. Without it tests/pure/test_fuzz_corpus.py
still puts the corpus through `check`. An input that broke something is kept in the corpus, named after what
it shows.
"""

import sys
from typing import Any

if __name__ == "__main__":
    import atheris

    with atheris.instrument_imports():
        from ringmount.workers import abi, codec
else:
    from ringmount.workers import abi, codec


def check(message: bytes) -> None:
    """Decode `message` in every way. Whatever this raises is a mistake in the codec."""
    for setxattr_ext in (True, False):
        try:
            head, op_in, payload = codec.split_legacy(memoryview(message), setxattr_ext)
        except codec.DecodeError:
            continue
        header = codec.decode_header(head)
        assert len(head) + len(op_in) + len(payload) == header.len <= len(message)
        check_body(header, bytes(op_in), bytes(payload), setxattr_ext)
    extensions(message, len(message) // 8)


def check_body(header: codec.Header, op_in: bytes, payload: bytes, setxattr_ext: bool) -> None:
    """The same request, in the device's buffer and in a ring's entry after other requests, is the same."""
    found = set()
    for stale in (b"", b"\0", b"\xff"):
        # INIT never comes by the ring, and the length of its struct tells its form.
        after = b"" if header.opcode == abi.Opcode.INIT else 128 * stale
        area = memoryview(stale + payload + 4096 * stale)
        request = area[len(stale) : len(stale) + len(payload)]
        result = outcome(header, memoryview(op_in + after), request, setxattr_ext)
        found.add(repr((result, extensions(request, header.total_extlen))))
    assert len(found) == 1, found


def outcome(header: codec.Header, op_in: memoryview, payload: memoryview, setxattr_ext: bool) -> tuple[Any, ...] | str:
    try:
        result = codec.decode(header.opcode, header.total_extlen, op_in, payload, setxattr_ext=setxattr_ext)
    except codec.DecodeError as error:
        return f"{type(error).__name__} {error.opcode}: {error}"
    return tuple(bytes(value) if isinstance(value, memoryview) else value for value in result)


def extensions(payload: bytes | memoryview, total_extlen: int) -> codec.Extensions | str:
    try:
        return codec.decode_extensions(payload, total_extlen)
    except codec.DecodeError as error:
        return type(error).__name__


def main() -> None:
    import atheris

    atheris.Setup(sys.argv, check)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
