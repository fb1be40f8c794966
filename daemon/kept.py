"""What a successor of this supervisor must know of the mount, stored in the arena as JSON.

There is no second INIT, and the settings that the mount was made with are in force until it is made anew. The rule a
change must keep: a key that is added has a default, so that what an older version stored can be read.
"""

import msgspec

from ringmount.config.model import MountConfig
from ringmount.daemon.session import Session
from ringmount.workers.messages import Description


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """One mount, as it is served."""

    config: MountConfig
    """In force."""
    asked: MountConfig
    """As the mount's file had it."""
    description: Description
    session: Session
    transport: str
    transport_reason: str
    connection: int | None
    """Its number in fusectl; None if the mount cannot be seen from where the supervisor is."""
    made_mountpoint: bool = False
    """Whether `run --mkdir` made it, and shall remove it."""
    since: float = 0.0
    """When it was mounted (time.time)."""
    adoptions: int = 0
    """Supervisors that took it over after a death so far."""
    draining: float | None = None
    """See `Mount.draining`."""
    reloads: int = 0
    """Those that took it over on purpose."""


def encode(kept: Kept) -> bytes:
    """For `Arena.store_session`."""
    return msgspec.json.encode(kept)


def decode(data: bytes) -> Kept:
    """Raises msgspec.MsgspecError for what this version cannot read."""
    return msgspec.json.decode(data, type=Kept)
