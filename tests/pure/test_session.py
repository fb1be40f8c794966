"""INIT: what is asked for, what is got, and what is said about the difference."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config.model import MIB, MountConfig, Timeouts
from ringmount.daemon.session import WISHES, OtherMajor, Session, SessionError, Wanted, negotiate
from ringmount.workers import abi
from ringmount.workers.abi import InitFlags
from ringmount.workers.codec import InitIn

# What Linux 6.18 offers.
OFFER = InitIn(major=7, minor=45, max_readahead=131072, flags=0x73FF_FFFB | 0x7FD << 32)
ALL_METHODS = frozenset({"open", "opendir", "readdirplus", "getlk", "setlk", "flock", "ioctl"})


@dataclass(frozen=True)
class Filesystem:
    methods: Collection[str] = ALL_METHODS
    posix_acl: bool = False
    handle_killpriv: bool = False
    export: bool = False


def wanted(filesystem: Filesystem | None = None, *, use_ring: bool = True, **settings: Any) -> Wanted:
    limit = {key: settings.pop(key) for key in ("max_pages_limit", "page_size", "queues") if key in settings}
    return Wanted(
        config=MountConfig(name="demo", mountpoint="/mnt/demo", filesystem="memory", **settings),
        filesystem=filesystem or Filesystem(),
        use_ring=use_ring,
        **{"queues": 4, **limit},
    )


def agree(wants: Wanted | None = None, offer: InitIn = OFFER) -> Session:
    session = negotiate(offer, wants or wanted())
    assert isinstance(session, Session)
    return session


def reply_fields(reply: bytes) -> dict[str, int]:
    return dict(zip(abi.FUSE_INIT_OUT.fields, abi.FUSE_INIT_OUT.struct.unpack(reply), strict=True))


def test_the_reply_is_what_was_agreed() -> None:
    session = agree()
    fields = reply_fields(session.reply)
    assert (fields["major"], fields["minor"]) == (7, 45)
    assert fields["flags"] | fields["flags2"] << 32 == session.flags
    assert fields["max_write"] == session.max_write == MIB
    assert fields["max_pages"] == session.max_pages == 256
    assert fields["max_readahead"] == session.max_readahead == 131072
    assert fields["max_background"] == session.max_background
    assert fields["time_gran"] == 1


@pytest.mark.parametrize(
    "flag",
    [
        InitFlags.ASYNC_READ,
        InitFlags.BIG_WRITES,
        InitFlags.ATOMIC_O_TRUNC,
        InitFlags.PARALLEL_DIROPS,
        InitFlags.ASYNC_DIO,
        InitFlags.ABORT_ERROR,
        InitFlags.MAX_PAGES,
        InitFlags.SETXATTR_EXT,
        InitFlags.INIT_EXT,
    ],
)
def test_what_costs_nothing_is_always_taken(flag: InitFlags) -> None:
    assert agree().has(flag)


@pytest.mark.parametrize(
    "flag",
    [
        InitFlags.PASSTHROUGH,
        InitFlags.REQUEST_TIMEOUT,
        InitFlags.EXPLICIT_INVAL_DATA,
        InitFlags.SECURITY_CTX,
        InitFlags.ALLOW_IDMAP,
        InitFlags.HANDLE_KILLPRIV,
    ],
)
def test_what_is_not_implemented_is_never_taken(flag: InitFlags) -> None:
    everything = Filesystem(posix_acl=True, handle_killpriv=True, export=True)
    assert not agree(wanted(everything)).flags & flag


@pytest.mark.parametrize(
    ("flag", "methods"),
    [
        (InitFlags.POSIX_LOCKS, {"getlk", "setlk"}),
        (InitFlags.FLOCK_LOCKS, {"flock"}),
        (InitFlags.HAS_IOCTL_DIR, {"ioctl"}),
        (InitFlags.DO_READDIRPLUS | InitFlags.READDIRPLUS_AUTO, {"readdirplus"}),
    ],
)
def test_a_flag_comes_with_all_its_methods(flag: InitFlags, methods: set[str]) -> None:
    assert agree(wanted(Filesystem(methods))).has(flag)
    for method in methods:
        assert not agree(wanted(Filesystem(methods - {method}))).flags & flag


@pytest.mark.parametrize(
    ("flag", "method"),
    [(InitFlags.NO_OPEN_SUPPORT, "open"), (InitFlags.NO_OPENDIR_SUPPORT, "opendir")],
)
def test_a_missing_method_is_told(flag: InitFlags, method: str) -> None:
    assert agree(wanted(Filesystem(ALL_METHODS - {method}))).has(flag)
    assert not agree().has(flag)


@pytest.mark.parametrize(
    ("flag", "filesystem"),
    [
        (InitFlags.POSIX_ACL | InitFlags.DONT_MASK, Filesystem(posix_acl=True)),
        (InitFlags.HANDLE_KILLPRIV_V2, Filesystem(handle_killpriv=True)),
        (InitFlags.EXPORT_SUPPORT, Filesystem(export=True)),
    ],
)
def test_a_flag_comes_with_its_declaration(flag: InitFlags, filesystem: Filesystem) -> None:
    assert agree(wanted(filesystem)).has(flag)
    assert not agree().flags & flag


def test_access_lists_do_not_turn_default_permissions_on_behind_the_users_back() -> None:
    session = agree(wanted(Filesystem(posix_acl=True), default_permissions=False))
    assert not session.flags & InitFlags.POSIX_ACL
    assert session.has(InitFlags.DONT_MASK)  # the filesystem beneath still knows the folder's default list
    assert session.notes == ("access control lists are not applied: they need default_permissions: true",)


@pytest.mark.parametrize(("cache", "is_caching"), [("none", False), ("normal", True), ("coherent", True)])
def test_caching_is_up_to_the_settings(cache: str, is_caching: bool) -> None:
    session = agree(wanted(cache=cache))
    assert session.has(InitFlags.AUTO_INVAL_DATA | InitFlags.CACHE_SYMLINKS) is is_caching
    assert session.has(InitFlags.DIRECT_IO_ALLOW_MMAP) is not is_caching


def test_the_kernel_gathers_writes_if_it_is_told_to() -> None:
    assert not agree().has(InitFlags.WRITEBACK_CACHE)
    assert agree(wanted(writeback=True)).has(InitFlags.WRITEBACK_CACHE)


@pytest.mark.parametrize(
    ("settings", "flags"),
    [
        ({}, InitFlags.DO_READDIRPLUS | InitFlags.READDIRPLUS_AUTO),
        ({"cache": "none"}, InitFlags(0)),
        ({"timeouts": Timeouts(entry=0)}, InitFlags(0)),
        ({"readdirplus": "always", "cache": "none"}, InitFlags.DO_READDIRPLUS),
        ({"readdirplus": "never"}, InitFlags(0)),
    ],
)
def test_listings_bring_attributes_where_they_can_be_kept_or_as_the_settings_say(
    settings: dict[str, Any], flags: InitFlags
) -> None:
    both = InitFlags.DO_READDIRPLUS | InitFlags.READDIRPLUS_AUTO
    assert agree(wanted(**settings)).flags & both == flags


def test_the_ring_is_taken_where_it_is_wanted_and_offered() -> None:
    assert agree().uses_ring
    assert agree().notes == ()
    assert not agree(wanted(use_ring=False)).uses_ring


def test_a_kernel_without_rings_is_told_about() -> None:
    session = agree(offer=OFFER._replace(flags=OFFER.flags & ~InitFlags.OVER_IO_URING))
    assert not session.uses_ring
    (note,) = session.notes
    assert note.startswith("the kernel does not offer FUSE_OVER_IO_URING")
    assert "enable_uring" in note


def test_no_ring_is_missed_where_none_is_wanted() -> None:
    offer = OFFER._replace(flags=OFFER.flags & ~InitFlags.OVER_IO_URING)
    assert agree(wanted(use_ring=False), offer).notes == ()


def test_without_the_upper_half_of_the_flags_none_of_it_is_used() -> None:
    session = agree(offer=InitIn(7, 31, 65536, OFFER.flags & 0x3FFF_FFFF))
    assert session.flags < InitFlags.INIT_EXT
    assert session.minor == 31


def test_the_kernels_page_limit_lowers_max_write() -> None:
    session = agree(wanted(max_pages_limit=16))
    assert (session.max_pages, session.max_write) == (16, 65536)
    assert session.notes == ("max_write is lowered to 64 KiB: the sysctl fs.fuse.max_pages_limit is below 256",)


def test_max_write_below_a_large_page_is_one_page() -> None:
    session = agree(wanted(max_write=4096, page_size=65536))
    assert (session.max_pages, session.max_write) == (1, 4096)


@pytest.mark.parametrize(("queues", "depth", "expected"), [(1, 1, 64), (64, 8, 512), (8192, 1024, 65535)])
def test_background_requests_can_fill_all_queues(queues: int, depth: int, expected: int) -> None:
    session = agree(wanted(queues=queues, queue_depth=depth))
    assert session.max_background == expected
    assert reply_fields(session.reply)["congestion_threshold"] == expected * 3 // 4


def test_the_device_buffer_has_room_for_the_largest_write() -> None:
    assert agree().device_buffer == MIB + abi.FUSE_IN_HEADER.size + abi.FUSE_WRITE_IN.size
    assert agree(wanted(max_write=4096)).device_buffer == abi.FUSE_MIN_READ_BUFFER


def test_a_newer_major_is_answered_with_ours_and_asked_again() -> None:
    answer = negotiate(OFFER._replace(major=8, minor=0), wanted())
    assert isinstance(answer, OtherMajor)
    assert reply_fields(answer.reply)["major"] == 7


@pytest.mark.parametrize(("major", "minor"), [(7, 30), (7, 0), (6, 99)])
def test_a_kernel_that_is_too_old_is_refused(major: int, minor: int) -> None:
    with pytest.raises(SessionError, match=rf"FUSE {major}\.{minor}; ringmount needs 7\.31"):
        negotiate(OFFER._replace(major=major, minor=minor), wanted())


def test_a_newer_minor_is_served_with_ours() -> None:
    assert agree(offer=OFFER._replace(minor=99)).minor == 45


def test_a_session_survives_being_stored() -> None:
    session = agree(wanted(max_pages_limit=16))
    assert msgspec.json.decode(msgspec.json.encode(session), type=Session) == session


def test_each_flag_is_wished_for_in_one_row() -> None:
    seen = InitFlags(0)
    for wish in WISHES:
        assert not seen & wish.flag
        assert wish.flag > seen
        seen |= wish.flag


def offered_flags(bits: int) -> int:
    """As the decoder gives them: without INIT_EXT there is no upper half."""
    return bits if bits & InitFlags.INIT_EXT else bits & 0xFFFF_FFFF


OFFERS = st.builds(
    InitIn,
    st.integers(0, 9),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1).map(offered_flags),
)
SETTINGS = st.fixed_dictionaries(
    {
        "cache": st.sampled_from(["none", "normal"]),
        "default_permissions": st.booleans(),
        "queue_depth": st.integers(1, 1024),
        "max_write": st.integers(1, 256).map(lambda pages: pages * 4096),
        "max_pages_limit": st.integers(1, 65535),
        "queues": st.integers(1, 8192),
        "use_ring": st.booleans(),
    }
)
FILESYSTEMS = st.builds(
    Filesystem, st.frozensets(st.sampled_from(sorted(ALL_METHODS))), st.booleans(), st.booleans(), st.booleans()
)


@given(OFFERS, FILESYSTEMS, SETTINGS)
def test_whatever_is_offered_nothing_more_is_taken(
    offer: InitIn, filesystem: Filesystem, settings: dict[str, Any]
) -> None:
    wants = wanted(filesystem, **settings)
    if (offer.major, offer.minor) < (7, 31):
        with pytest.raises(SessionError):
            negotiate(offer, wants)
        return
    session = negotiate(offer, wants)
    if isinstance(session, OtherMajor):
        assert offer.major > 7
        return
    assert session.flags & ~offer.flags == 0
    assert session.uses_ring <= wants.use_ring
    assert 4096 <= session.max_write <= wants.config.max_write
    assert session.max_write <= session.max_pages * 4096
    assert session.max_pages <= wants.max_pages_limit
