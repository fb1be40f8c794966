"""Entries of journald's native protocol, read as journald reads them."""

import struct


def decoded(entry: bytes) -> dict[str, str]:
    """The fields of an entry, each of which it has once."""
    fields: dict[str, str] = {}
    while entry:
        head, _, entry = entry.partition(b"\n")
        name, is_short, value = head.partition(b"=")
        if not is_short:
            (size,) = struct.unpack_from("<Q", entry)
            value, entry = entry[8 : 8 + size], entry[8 + size + 1 :]
        assert name.decode() not in fields
        fields[name.decode()] = value.decode("utf-8", "backslashreplace")
    return fields
