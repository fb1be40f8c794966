"""The worlds, set up once for all tests of this folder."""

from collections.abc import Iterator

import pytest
from mount.differential import mounts
from mount.differential.walk import Worlds
from mount.posix.targets import RUN_LIMIT


@pytest.fixture(scope="package", params=mounts.chosen(mounts.GROUPS))
def worlds(request: pytest.FixtureRequest) -> Iterator[Worlds]:
    with mounts.worlds(mounts.GROUPS[request.param], patience=RUN_LIMIT) as found:
        yield found
