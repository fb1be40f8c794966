"""What is logged besides a text: the events that matter, a row each, and what a message is about.

The journal keeps both as fields (daemon/log.py): `journalctl MESSAGE_ID=... WORKER=1` finds messages by them.

The rule a change must keep: an event's id never changes its meaning, for scripts and alerts rely on it. New ones come
from `journalctl --new-id128`.
"""

import logging
from dataclasses import dataclass
from typing import Any

from ringmount.workers.abi import Opcode


@dataclass(frozen=True)
class Event:
    """One row. `id`: its MESSAGE_ID; `what`: what has happened; `advice`: what to do, and where to look."""

    name: str
    id: str
    what: str
    advice: str


MOUNTED = Event(
    "mounted",
    "3e76d16eb71e4082be2508abd3782bc3",
    "The mount is there and answers.",
    "Nothing is to be done. `ringmount status NAME` shows its workers.",
)
WORKER_DIED = Event(
    "worker died",
    "712a0ab1b4ac4003b978b280f4ca637b",
    "A worker process ended by a signal or an error, and another takes its place.",
    "Applications have hardly noticed. What it was doing is said by the stacks just above in the journal,"
    " if it crashed, or by the kernel's log, if it was killed for want of memory. Report a crash to the "
    "filesystem's author.",
)
WORKER_BACK = Event(
    "worker back",
    "dd31301fd3d44782815439e3283d7e55",
    "Another process serves in the place of a worker that died.",
    "Nothing is to be done.",
)
REQUEST_QUARANTINED = Event(
    "request quarantined",
    "aa54340c23fe40468576213419e03700",
    "A request was under way when two workers died, so it was answered EIO and is not run again.",
    "OPCODE, NODEID and the message say which one. Report it to the filesystem's author with the workers'"
    " stacks, which stand above in the journal.",
)
REQUEST_LOST = Event(
    "request lost",
    "2c80c89b1d6a4cfca1e5daad82c7000f",
    "A request was under way when its worker died, and running it again might do it twice: it was answered EIO.",
    "The change may have been made or not: look at the file or folder that the message names. The "
    "application that asked has got an error.",
)
HANG = Event(
    "hang",
    "cb9e88ccd10c4f99812f254e9d9e567b",
    "A request takes longer than timeouts.request allows, or a worker takes no turn: the worker is replaced.",
    "The stacks of all its threads follow in the journal and show what it waits for, often a slow or dead"
    " server or disk. If such requests are in order, raise timeouts.request in the mount's file.",
)
WORKER_OVER_MEMORY = Event(
    "worker over memory",
    "2afdaf99abf841edabf593c159c87f6a",
    "A worker takes more memory than memory_limit: it is replaced, and no request is lost.",
    "Now and then this is what the limit is for. Where it happens every few minutes, raise memory_limit "
    "in the mount's file or look for a leak in the filesystem.",
)
ADOPTED = Event(
    "taken over",
    "865ff9507f0040aabf1a93cd10ca016d",
    "The supervisor died, and another one took over the mount with its open files.",
    "Look in the journal for why the first one died; the mount goes on.",
)
NOT_ADOPTED = Event(
    "not taken over",
    "06eed89e14534bbab23b757fc5128b4f",
    "The mount that a dead supervisor left could not be taken over, and is made anew.",
    "Files that were open on it give errors: restart the applications that had them open.",
)
RELOADED = Event(
    "reloaded",
    "2e1dc9a538ad49efb4f08dbd9ca8c1ff",
    "The mount goes on with the code that is installed and the settings that its file has now.",
    "Nothing is to be done.",
)
RELOAD_REFUSED = Event(
    "reload refused",
    "7527270d54cb4436b4158e1e8c9fe3b7",
    "The mount could not go on with its file or the installed code as they are now, so it goes on as it was.",
    "The message says why. Put it right and reload again; what lasts as long as the mount does needs a restart.",
)
TRANSPORT_FELL_BACK = Event(
    "transport fell back",
    "f4b5f51567f64dd1829eadfeb87c1e61",
    "Requests travel by /dev/fuse, because io_uring could not be had. The mount works, but slower.",
    "`ringmount doctor` says how to get io_uring; `transport: dev_fuse` in the mount's file says that it is meant so.",
)
DATA_FELL_BACK = Event(
    "data path fell back",
    "7b349fa41bd34d99a86245aaba4fd310",
    "Contents of files go through the workers, because the kernel does not take the files beneath. It "
    "works, but slower.",
    "The message says why; `data: userspace` in the mount's file says that it is meant so.",
)
STOPPING = Event(
    "stopping",
    "7c76133013ad402a89a53cf02d2512c7",
    "The mount is being stopped, by a signal, by `ringmount umount` or because it was unmounted.",
    "Nothing is to be done.",
)
UNMOUNTED = Event(
    "unmounted",
    "8cd6768d856f4b5eb8901b3ef2ac32f1",
    "The mount is gone and its processes have ended.",
    "Nothing is to be done.",
)
FAILED = Event(
    "failed",
    "d64a0a303d35487a878095a090d8e298",
    "The mount could not be made, or cannot go on.",
    "The message says why, and after the semicolon what to do. `ringmount check FILE.yaml` and `ringmount"
    " doctor` look at the mount's file and at the machine without mounting anything.",
)
SUPPRESSED = Event(
    "messages left out",
    "95010a228bb64eb7af00f57143f8c9e6",
    "Messages that are all alike came so often that some of them were not logged.",
    "The message counts them and shows the last one. What counts deaths and requests is never left out.",
)

EVENTS = [row for row in list(globals().values()) if isinstance(row, Event)]
"""All of them."""

ABOUT = "ringmount"
"""The attribute of a logging.LogRecord that holds an `About`."""


@dataclass(frozen=True)
class About:
    """What a message is about. `fields`: by their names in the journal."""

    event: Event | None
    fields: dict[str, object]


IDENTITY: dict[str, object] = {}
"""Fields of every message of this process."""


def identify(**fields: object) -> None:
    """Sets fields (in capitals) of every message of this process from here on; None takes one away."""
    IDENTITY.update(fields)


def about(
    event: Event | None = None,
    *,
    worker: int | None = None,
    cpu: int | None = None,
    opcode: int | None = None,
    nodeid: int | None = None,
    unique: int | None = None,
    errno: int | None = None,
) -> dict[str, Any]:
    """What a message is about, for `extra=` of a logging call. `errno` is positive."""
    fields: dict[str, object] = {
        "WORKER": worker,
        "CPU": cpu,
        "OPCODE": None if opcode is None else _named(opcode),
        "NODEID": nodeid,
        "UNIQUE": unique,
        "ERRNO": errno,
    }
    return {ABOUT: About(event, {name: value for name, value in fields.items() if value is not None})}


def event_of(record: logging.LogRecord) -> Event | None:
    """The event that a message tells of."""
    told = getattr(record, ABOUT, None)
    return told.event if isinstance(told, About) else None


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """A message's fields of ours: those of this process, and what it is about."""
    told = getattr(record, ABOUT, None)
    fields = {**IDENTITY, **(told.fields if isinstance(told, About) else {})}
    return {name: value for name, value in fields.items() if value is not None}


def _named(opcode: int) -> str:
    try:
        return Opcode(opcode).name
    except ValueError:
        return str(opcode)
