"""The settings of a mount: every key of its file, declared once.

One field is one key, in the order of the long form. Its type, limits, default, description and notation
stand here and nowhere else: the loader, the error messages, the JSON Schema and docs/configuration.md
are derived from them. A description's first sentence is also the hint of an error at that key.
"""

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field

from ringmount.config.units import MAX_CPUS

PAGE = 4096
MIB = 1 << 20
YEAR = 365 * 86400
LogLevel = Literal["debug", "info", "warning", "error"]

BUILT_IN = ("passthrough", "memory")
"""Filesystems that are named by one word."""

FILESYSTEM_PATTERN = (
    f"^({'|'.join(BUILT_IN)}"
    "|[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*:[A-Za-z_][A-Za-z0-9_]*([.][A-Za-z_][A-Za-z0-9_]*)*)$(?!\n)"
)
METRICS_PATTERN = "^(/.+|127[.]0[.]0[.]1:[0-9]{1,5}|\\[::1\\]:[0-9]{1,5})$(?!\n)"
USER_PATTERN = "^[A-Za-z0-9_][A-Za-z0-9_.@\\\\-]{0,254}[$]?$(?!\n)"

SIZE = {"notation": "size"}
CPULIST = {"notation": "cpulist", "null": "auto"}
SECONDS = {"notation": "seconds"}
MOUNTPOINT = {"notation": "mountpoint", "noun": "an absolute path"}
FILESYSTEM = {"notation": "filesystem", "noun": "passthrough, memory or package.module:Class"}
USER = {"noun": "a user's name"}
GROUP = {"noun": "a group's name"}
METRICS = {"notation": "metrics", "noun": "a socket's path, 127.0.0.1:PORT or [::1]:PORT"}

Seconds = Annotated[float, Meta(ge=0, le=YEAR)]
Size = Annotated[int, Meta(ge=PAGE, le=1 << 46)]
Cpu = Annotated[int, Meta(ge=0, le=MAX_CPUS - 1)]


class Timeouts(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long answers stay valid in the kernel, and how long a handler may take; all in seconds."""

    attr: Annotated[
        Seconds,
        Meta(
            description="How long the kernel may answer stat from the attributes it has. "
            "Longer is faster; changes made behind the mount show up later.",
            extra=SECONDS,
        ),
    ] = 1.0
    entry: Annotated[
        Seconds,
        Meta(
            description="How long the kernel may use a name it has looked up without asking again.",
            extra=SECONDS,
        ),
    ] = 1.0
    negative: Annotated[
        Seconds,
        Meta(
            description="How long the kernel may remember that a name does not exist. "
            "With 0 it asks each time, so that a new file shows up at once.",
            extra=SECONDS,
        ),
    ] = 0.0
    request: Annotated[
        Seconds,
        Meta(
            description="How long a handler may take before its worker counts as hung. "
            "A hung handler is reported with its Python stack and its worker is replaced. 0 means for ever.",
            extra=SECONDS,
        ),
    ] = 60.0


class MountConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything that a mount's file says. `name` is the file's stem; it is not a key of the file.

    `options` holds only str, int (64 bits), finite float, bool, None, list and dict with str keys, so that it
    can be handed on as JSON. The filesystem checks what they mean.
    """

    name: str
    mountpoint: Annotated[
        str,
        Meta(
            pattern="^/",
            description="The folder to mount on, as an absolute path. It must exist and be empty.",
            extra=MOUNTPOINT,
        ),
    ]
    filesystem: Annotated[
        str,
        Meta(
            pattern=FILESYSTEM_PATTERN,
            description="Who answers the requests: passthrough, memory, or a class of yours as package.module:Class.",
            extra=FILESYSTEM,
        ),
    ]
    options: Annotated[
        dict[str, Any],
        Meta(
            description="The filesystem's own settings. passthrough needs source, the folder it shows; "
            "the options of the others are in their documentation.",
        ),
    ] = field(default_factory=dict)
    transport: Annotated[
        Literal["auto", "io_uring", "dev_fuse"],
        Meta(
            description="How requests arrive: through io_uring rings, or by reading /dev/fuse. auto takes "
            "the rings where the kernel has them (6.14 and later) and its switch is on.",
        ),
    ] = "auto"
    workers: Annotated[
        Annotated[int, Meta(ge=1, le=MAX_CPUS)] | Literal["auto"],
        Meta(
            description="The number of worker processes. auto starts one per CPU of `cpus`, each pinned to its own.",
        ),
    ] = "auto"
    cpus: Annotated[
        Annotated[tuple[Cpu, ...], Meta(min_length=1, max_length=MAX_CPUS)] | None,
        Meta(
            description="The CPUs that workers are pinned to, as a list or as text such as 0-3,5. "
            "auto or null means every online CPU. These workers serve the requests from other CPUs too.",
            extra=CPULIST,
        ),
    ] = None
    queue_depth: Annotated[
        int,
        Meta(
            ge=1,
            le=1024,
            description="How many requests each CPU's queue holds at a time. More helps filesystems "
            "that wait (async handlers) and costs memory: a buffer of max_write each.",
        ),
    ] = 8
    max_write: Annotated[
        int,
        Meta(
            ge=PAGE,
            le=MIB,
            multiple_of=PAGE,
            description="The most bytes that one READ or WRITE request carries. "
            "The kernel may lower it to its sysctl fs.fuse.max_pages_limit.",
            extra=SIZE,
        ),
    ] = MIB
    readahead: Annotated[
        Size | None,
        Meta(
            description="How much of a file the kernel asks for ahead of whoever reads it in order; null leaves that "
            "to the kernel, which takes 128 KiB. Up to max_write it makes requests fewer and larger. More than 128 KiB "
            "needs root.",
            extra=SIZE,
        ),
    ] = None
    ring_memory: Annotated[
        Size | None,
        Meta(
            description="The most memory that the buffers of this mount's rings may take; null means a "
            "quarter of the machine's. A mount that needs more does not start and says what to lower.",
            extra=SIZE,
        ),
    ] = None
    memory_limit: Annotated[
        Size | None,
        Meta(
            description="The most memory that a worker may take for itself; one above it is replaced, without a call "
            "failing, before the kernel has to kill it. null means any amount.",
            extra=SIZE,
        ),
    ] = None
    timeouts: Annotated[
        Timeouts,
        Meta(description="How long the kernel may reuse answers, and how long a handler may take."),
    ] = Timeouts()
    cache: Annotated[
        Literal["none", "normal", "coherent"],
        Meta(
            description="What the kernel keeps: nothing (none), contents until the file is opened again and the rest "
            "as `timeouts` says (normal), or everything until it changes, beneath the mount too (coherent). "
            "coherent watches the filesystem beneath, and `timeouts` is then for what cannot be watched.",
        ),
    ] = "normal"
    data: Annotated[
        Literal["auto", "passthrough", "userspace"],
        Meta(
            description="The way that file contents take: through the workers (userspace), by the kernel "
            "straight to the backing file (passthrough), or that where it can be had and else through the workers "
            "(auto). It can be had by root, outside of user namespaces, since Linux 6.9, from a filesystem that offers "
            "its files, as passthrough does.",
        ),
    ] = "auto"
    writeback: Annotated[
        bool,
        Meta(
            description="Whether the kernel gathers written bytes and hands them over later, in large pieces. Small "
            "writes become much faster; sizes and times of files are then the kernel's, so that nobody else may write "
            "to the files beneath. Excludes data: passthrough, and any cache but normal.",
        ),
    ] = False
    keep_cache: Annotated[
        bool,
        Meta(
            description="Whether contents that the kernel has cached outlast the next open. They are dropped when "
            "size or mtime turn out to have changed, which read(2) finds out after timeouts.attr, and a mapping does "
            "not. Only with cache: normal; coherent keeps them anyhow.",
        ),
    ] = False
    parallel_direct_writes: Annotated[
        bool,
        Meta(
            description="Whether several writes to one file go on at the same time where the page cache is left out: "
            "in files opened with O_DIRECT, and in all with cache: none. Of writes larger than max_write that "
            "overlap, pieces of each may be left.",
        ),
    ] = False
    readdirplus: Annotated[
        Literal["auto", "always", "never"],
        Meta(
            description="Whether listings bring the attributes of each name: always, never, or when the kernel "
            "thinks that they will be asked for (auto, which is never where names may not be kept).",
        ),
    ] = "auto"
    on_crash: Annotated[
        Literal["retry", "eio"],
        Meta(
            description="What happens to a request whose worker died: the next worker runs it again "
            "(retry), or it is answered with EIO (eio).",
        ),
    ] = "retry"
    allow_other: Annotated[
        bool,
        Meta(
            description="Whether users other than the one who mounts may use the mount. "
            "For an ordinary user this needs user_allow_other in /etc/fuse.conf.",
        ),
    ] = True
    default_permissions: Annotated[
        bool,
        Meta(
            description="Whether the kernel checks modes and owners itself. Without it only the filesystem decides.",
        ),
    ] = True
    user: Annotated[
        Annotated[str, Meta(pattern=USER_PATTERN)] | None,
        Meta(
            description="The user that workers run as, where the filesystem allows it; "
            "null leaves them as they were started.",
            extra=USER,
        ),
    ] = None
    control_group: Annotated[
        Annotated[str, Meta(pattern=USER_PATTERN)] | None,
        Meta(
            description="The group whose members may see into the mount: `ringmount ps`. `ringmount status` is for "
            "everybody, what changes something for root and the mount's user. null is the group ringmount, if there is "
            "one.",
            extra=GROUP,
        ),
    ] = None
    read_only: Annotated[
        bool,
        Meta(description="Whether the kernel refuses every change with EROFS."),
    ] = False
    log_level: Annotated[
        LogLevel,
        Meta(description="The least important messages that are still logged."),
    ] = "info"
    metrics: Annotated[
        Annotated[str, Meta(pattern=METRICS_PATTERN)] | None,
        Meta(
            description="Where Prometheus may ask for this mount's numbers. A port is of this machine alone, and every "
            "user of it can ask there; a Unix socket, given as an absolute path, those who may enter its folder. "
            "null serves none.",
            extra=METRICS,
        ),
    ] = None


NOT_YET: dict[str, tuple[str, ...]] = {}
"""Values that have a name but no implementation yet. Enabling one is removing it here, nothing else."""
