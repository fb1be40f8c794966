"""The tables agree with the running kernel's type information, with the C header, and with themselves."""

import re
from collections.abc import Mapping
from enum import IntEnum, IntFlag
from pathlib import Path

import pytest
from pure.btf import Btf, Struct

from ringmount.workers import abi
from ringmount.workers.abi import LAYOUTS, OPERATIONS, Layout, Name, Opcode, Operation, Reply

BTF = Path("/sys/kernel/btf")
HEADER = Path("/usr/include/linux/fuse.h")

NO_STRUCT_OF_THE_KERNEL = {
    "fuse_compat_setxattr_in": "the kernel has only a size for it, FUSE_COMPAT_SETXATTR_IN_SIZE",
    "fuse_compat_init_in": "the first four fields of fuse_init_in: all there was before 7.36",
}
MAY_BE_ABSENT = {
    # The compiler leaves no trace of a struct that its kernel does not use.
    "fuse_rename_in": "the kernel fills fuse_rename2_in and sends its first 8 bytes",
    "fuse_setupmapping_in": "without CONFIG_FUSE_DAX",
    "fuse_removemapping_in": "without CONFIG_FUSE_DAX",
    "fuse_removemapping_one": "without CONFIG_FUSE_DAX",
    "cuse_init_in": "without CONFIG_CUSE",
    "cuse_init_out": "without CONFIG_CUSE",
}
BROUGHT_BY = {
    # Absent from a kernel that has not got the enumerator either.
    "fuse_copy_file_range_out": "FUSE_COPY_FILE_RANGE_64",
    "fuse_notify_prune_out": "FUSE_NOTIFY_PRUNE",
}
RESERVED = {"CUSE_INIT_BSWAP_RESERVED", "FUSE_INIT_BSWAP_RESERVED", "FUSE_NOTIFY_CODE_MAX"}

FLAGS: list[tuple[str, type[IntFlag]]] = [
    ("FATTR_", abi.SetattrValid),
    ("FOPEN_", abi.OpenReply),
    ("FUSE_OPEN_", abi.OpenIn),
    ("FUSE_RELEASE_", abi.ReleaseFlags),
    ("FUSE_GETATTR_", abi.GetattrFlags),
    ("FUSE_LK_", abi.LockFlags),
    ("FUSE_WRITE_", abi.WriteFlags),
    ("FUSE_READ_", abi.ReadFlags),
    ("FUSE_IOCTL_", abi.IoctlFlags),
    ("FUSE_POLL_", abi.PollFlags),
    ("FUSE_FSYNC_", abi.FsyncFlags),
    ("FUSE_ATTR_", abi.AttrFlags),
    ("FUSE_SETXATTR_", abi.SetxattrFlags),
    ("FUSE_SETUPMAPPING_FLAG_", abi.SetupmappingFlags),
    ("CUSE_", abi.CuseInitFlags),
    ("FUSE_", abi.InvalEntryFlags),
    ("FUSE_", abi.InitFlags),
]


class Kernel:
    """Structs and enumerators of the FUSE interface in the running kernel, built in or in modules."""

    def __init__(self) -> None:
        self.structs: dict[str, Struct] = {}
        self.enums: dict[str, dict[str, int]] = {}
        vmlinux = Btf((BTF / "vmlinux").read_bytes())
        modules = [path for name in ("fuse", "cuse") if (path := BTF / name).exists()]
        for btf in [vmlinux, *(Btf(path.read_bytes(), vmlinux) for path in modules)]:
            self.structs |= btf.structs("fuse_", "cuse_")
            self.enums |= btf.enums("fuse_")

    @property
    def enumerators(self) -> set[str]:
        return {name for enum in self.enums.values() for name in enum}


@pytest.fixture(scope="module")
def kernel() -> Kernel:
    if not (BTF / "vmlinux").exists():
        pytest.skip(f"needs a kernel with {BTF / 'vmlinux'} (CONFIG_DEBUG_INFO_BTF)")
    found = Kernel()
    if "fuse_in_header" not in found.structs:
        pytest.skip("the fuse module is not loaded (modprobe fuse)")
    return found


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_struct_has_the_size_and_the_fields_of_the_running_kernel(kernel: Kernel, name: str) -> None:
    if name in NO_STRUCT_OF_THE_KERNEL:
        assert name not in kernel.structs
        return
    if name not in kernel.structs:
        assert name in MAY_BE_ABSENT or BROUGHT_BY.get(name, "FUSE_LOOKUP") not in kernel.enumerators
        return
    layout, theirs = LAYOUTS[name], kernel.structs[name]
    members = {field: member for field, member in theirs.members.items() if member.size}
    ours = {field: offset for field, offset in layout.offsets.items() if "." not in field}
    assert layout.size == theirs.size
    assert ours == {field: member.offset for field, member in members.items()}
    assert field_sizes(layout) == {field: member.size for field, member in members.items()}


@pytest.mark.parametrize("name", MAY_BE_ABSENT)
def test_a_struct_that_may_be_absent_from_the_kernel_is_that_of_the_c_header(name: str) -> None:
    if not HEADER.exists():
        pytest.skip(f"needs {HEADER} (linux-libc-dev)")
    found = re.search(rf"struct {name} {{(.*?)}};", HEADER.read_text(), re.DOTALL)
    assert found
    fields = re.findall(r"uint(\d+)_t\s+(\w+)(?:\[(\d+)\])?;", found[1])
    sizes = {field: int(bits) // 8 * int(count or 1) for bits, field, count in fields}
    assert field_sizes(LAYOUTS[name]) == sizes
    assert LAYOUTS[name].size == sum(sizes.values())


def field_sizes(layout: Layout) -> dict[str, int]:
    starts = [(offset, field) for field, offset in layout.offsets.items() if "." not in field]
    ends = [offset for offset, _field in starts[1:]] + [layout.size]
    return {field: end - start for (start, field), end in zip(starts, ends, strict=True)}


def test_no_struct_of_the_protocol_is_missing(kernel: Kernel) -> None:
    # In the kernel the names of messages end like this; its own objects do so only in these cases.
    known = {f"FUSE_{code.name}" for code in Opcode} | {f"FUSE_NOTIFY_{code.name}" for code in abi.Notify}
    if not {*kernel.enums["fuse_opcode"], *kernel.enums["fuse_notify_code"]} <= known | RESERVED | {"CUSE_INIT"}:
        pytest.skip("the kernel is newer than the tables")
    messages = {name for name in kernel.structs if re.search(r"_(in|out|in_out|header|one|req)$", name)}
    assert messages - set(LAYOUTS) == {"fuse_req"}


@pytest.mark.parametrize(
    ("name", "prefix", "ours"),
    [
        ("fuse_opcode", "FUSE_", Opcode),
        ("fuse_notify_code", "FUSE_NOTIFY_", abi.Notify),
        ("fuse_uring_cmd", "FUSE_IO_URING_CMD_", abi.UringCommand),
        ("fuse_ext_type", "FUSE_", abi.ExtType),
    ],
)
def test_codes_are_those_of_the_running_kernel(kernel: Kernel, name: str, prefix: str, ours: type[IntEnum]) -> None:
    theirs = {key.removeprefix(prefix): value for key, value in kernel.enums[name].items() if key not in RESERVED}
    known = {member.name: member.value for member in ours}
    filesystem_codes = [value for value in known.values() if value != Opcode.CUSE_INIT]
    # A kernel may be newer or older than the tables, but then it differs only at the end.
    last = min(max(filesystem_codes), max(value for value in theirs.values() if value != Opcode.CUSE_INIT))
    common = {*range(last + 1), int(Opcode.CUSE_INIT)}
    assert {key: value for key, value in known.items() if value in common} == {
        key: value for key, value in theirs.items() if value in common
    }


def header_constants(text: str) -> dict[str, int]:
    """What `#define NAME VALUE` says, for values that are a number or a shifted number."""
    pattern = r"^#define\s+(\w+)\s+\(?(\d+)(?:ull)?(?:\s*<<\s*(\d+))?\)?\s*(?:/\*.*)?$"
    found = re.findall(pattern, text, re.MULTILINE | re.IGNORECASE)
    return {name: int(number) << int(shift or 0) for name, number, shift in found}


def flag_names() -> dict[str, int]:
    return {
        prefix + member.name.removeprefix("_"): member.value
        for prefix, flags in FLAGS
        for member in flags
        if member.name
    }


def test_flags_are_those_of_the_c_header() -> None:
    if not HEADER.exists():
        pytest.skip(f"needs {HEADER} (linux-libc-dev)")
    theirs = header_constants(HEADER.read_text())
    minor = theirs["FUSE_KERNEL_MINOR_VERSION"]
    numbers = {name: value for name in theirs if isinstance(value := getattr(abi, name, None), int)}
    ours = flag_names() | numbers
    del ours["FUSE_KERNEL_MINOR_VERSION"]
    assert {name: value for name, value in theirs.items() if name in ours} == {
        name: value for name, value in ours.items() if name in theirs
    }
    if minor <= abi.FUSE_KERNEL_MINOR_VERSION:
        sizes = {name for name in theirs if name.startswith("FUSE_COMPAT_")}
        others = {"FUSE_KERNEL_MINOR_VERSION", "FUSE_DEV_IOC_MAGIC"}
        assert set(theirs) - set(ours) == sizes | others


def test_every_flag_is_one_bit_and_no_bit_has_two_names() -> None:
    for _prefix, flags in FLAGS:
        values = [member.value for member in flags.__members__.values()]
        assert len(set(values)) == len(values)
        assert all(value.bit_count() == 1 for value in values)


def test_a_flag_that_is_not_known_is_kept() -> None:
    assert int(abi.InitFlags(1 << 60 | 1)) == 1 << 60 | 1


def test_device_ioctls_are_what_the_macros_make() -> None:
    def ioc(direction: int, number: int, size: int) -> int:
        return direction << 30 | size << 16 | 229 << 8 | number

    write, read = 1, 2
    assert ioc(read, 0, 4) == abi.FUSE_DEV_IOC_CLONE
    assert ioc(write, 1, abi.FUSE_BACKING_MAP.size) == abi.FUSE_DEV_IOC_BACKING_OPEN
    assert ioc(write, 2, 4) == abi.FUSE_DEV_IOC_BACKING_CLOSE
    assert ioc(0, 3, 0) == abi.FUSE_DEV_IOC_SYNC_INIT


def test_every_opcode_has_one_row() -> None:
    assert set(OPERATIONS) == set(Opcode)
    assert all(opcode == row.opcode for opcode, row in OPERATIONS.items())


@pytest.mark.parametrize("row", OPERATIONS.values(), ids=lambda row: row.opcode.name)
def test_a_row_is_consistent(row: Operation) -> None:
    assert 0 <= row.since <= abi.FUSE_KERNEL_MINOR_VERSION
    assert row.op_in_size <= abi.FUSE_URING_OP_IN_OUT_SZ
    assert row.names == len(row.kinds)
    if row.data or row.items or row.inline:
        assert row.request
        assert (row.data or "count") in row.request.fields
    if row.ext:
        assert Name.ENTRY in row.kinds or row.opcode is Opcode.TMPFILE
    if not row.replies:
        assert row.reply is Reply.NONE


def test_op_in_sizes_are_those_seen_on_the_ring() -> None:
    seen: Mapping[int, str] = {
        0: "LOOKUP UNLINK RMDIR SYMLINK REMOVEXATTR STATFS READLINK NOTIFY_REPLY",
        8: "OPEN OPENDIR ACCESS MKDIR LINK RENAME GETXATTR LISTXATTR",
        16: "GETATTR FSYNC FSYNCDIR CREATE MKNOD TMPFILE RENAME2 SETXATTR",
        24: "RELEASE RELEASEDIR FLUSH POLL LSEEK STATX",
        32: "IOCTL FALLOCATE",
        40: "READ READDIR READDIRPLUS WRITE",
        48: "GETLK SETLK SETLKW",
        56: "COPY_FILE_RANGE COPY_FILE_RANGE_64",
        88: "SETATTR",
    }
    assert {name: OPERATIONS[Opcode[name]].op_in_size for names in seen.values() for name in names.split()} == {
        name: size for size, names in seen.items() for name in names.split()
    }


def test_a_struct_inside_a_struct_keeps_its_names() -> None:
    assert abi.FUSE_ATTR_OUT.fields[:4] == ("attr_valid", "attr_valid_nsec", "dummy", "attr.ino")
    assert abi.FUSE_ATTR_OUT.offsets["attr"] == abi.FUSE_ATTR_OUT.offsets["attr.ino"] == 16
    assert abi.FUSE_URING_REQ_HEADER.offsets["ring_ent_in_out.commit_id"] == 264


def test_a_field_without_a_value_has_an_offset_only() -> None:
    assert abi.FUSE_INIT_IN.offsets["unused"] == 20
    assert "unused" not in abi.FUSE_INIT_IN.fields
    assert len(abi.FUSE_INIT_IN.struct.unpack(bytes(64))) == len(abi.FUSE_INIT_IN.fields)
