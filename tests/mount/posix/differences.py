"""What differs from a kernel filesystem by nature: the tests that show it fail there, must fail, and this table says why."""

from collections.abc import Mapping
from typing import NamedTuple

from mount.posix.targets import Place


class Difference(NamedTuple):
    """`test` is "module::function" without "test_"; `kinds` of targets it fails on, `only` these values of its parameters."""

    test: str
    kinds: tuple[str, ...]
    reason: str
    only: Mapping[str, object] = {}

    def concerns(self, module: str, function: str, parameters: Mapping[str, object]) -> bool:
        place = parameters["target"]
        assert isinstance(place, Place)
        return (
            f"test_{self.test.replace('::', '::test_')}" == f"{module}::{function}"
            and place.kind in self.kinds
            and all(parameters[name] == value for name, value in self.only.items())
        )


INHERENT: tuple[Difference, ...] = ()
