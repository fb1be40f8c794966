"""Tests that are run for many values in one go, each time in a folder of its own.

`@each("kind", kinds.ALL)` is `@pytest.mark.parametrize` at a tenth of its cost: what pytest does around a test takes
longer than most of these tests.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mount.posix.kinds import make_folder

Values = Iterable[Any] | Mapping[str, Any]


def each(names: str | tuple[str, ...], values: Values) -> Callable[[Callable[..., None]], Any]:
    """Gives a test that has the parameter `folder` the values one by one; for several names they are tuples.

    A mapping's keys say which value it was that failed.
    """
    filled = names if isinstance(names, tuple) else (names,)

    def decorate(test: Callable[..., None]) -> Any:
        signature = inspect.signature(test)
        kept = [parameter for name, parameter in signature.parameters.items() if name not in filled]

        def run(**fixtures: Any) -> None:
            for number, (label, value) in enumerate(_labelled(values)):
                arguments = dict(zip(filled, value if names is filled else (value,), strict=True))
                folder = make_folder(fixtures["folder"] / str(number), 0o777)
                try:
                    test(**(fixtures | arguments | {"folder": folder}))
                except BaseException as error:
                    error.add_note(f"with {names}: {label}")
                    raise

        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        run.__wrapped__ = test  # type: ignore[attr-defined]  # tells pytest where the test is
        run.__signature__ = signature.replace(parameters=kept)  # type: ignore[attr-defined]  # and what it needs
        return run

    return decorate


def _labelled(values: Values) -> Iterator[tuple[str, Any]]:
    if isinstance(values, Mapping):
        yield from values.items()
    else:
        yield from ((str(value), value) for value in values)
