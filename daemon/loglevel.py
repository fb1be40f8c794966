"""`ringmount log-level`: from which level on a running mount logs, asked and set."""

import msgspec

from ringmount.config.model import LogLevel
from ringmount.daemon import asked, client, status
from ringmount.daemon.control import LATER, Client
from ringmount.daemon.crew import Crew
from ringmount.daemon.exitcodes import Failure
from ringmount.daemon.mount import Mount


class Levels(msgspec.Struct):
    """Of the supervisor and of workers that have none of their own; and of those, by number."""

    level: LogLevel
    workers: dict[int, LogLevel]

    def __str__(self) -> str:
        own = [f"worker {worker}: {level}" for worker, level in sorted(self.workers.items())]
        return "; ".join([self.level, *own])


def answer(mount: Mount, crew: Crew, question: asked.SetLogLevel, asking: Client) -> object:
    """The supervisor's side: sets what is to be set, and says how it is then."""
    if question.worker is not None and not 0 <= question.worker < len(crew.workers):
        asking.refuse(f"there is no worker {question.worker}, only 0 to {len(crew.workers) - 1}")
        return LATER
    if question.level is not None:
        crew.set_log_level(question.level, question.worker)
    return Levels(mount.log_level, mount.worker_log_levels)


def log_level(name: str, level: LogLevel | None, worker: int | None) -> str:
    """Sets the level of a mount or of one of its workers, None: of none; returns what the levels are then.

    Raises Failure.
    """
    identity = status.choose(name).known.identity
    try:
        with client.Connection(identity.socket, identity.owner) as connection:
            raw = connection.ask(asked.SetLogLevel(level=level, worker=worker))
        levels = msgspec.convert(raw, Levels, strict=False)
    except client.NotRunning:
        raise Failure(f"{name} is not running any more") from None
    except msgspec.ValidationError as error:
        raise Failure(f"the supervisor of {name} answered nonsense: {error}") from error
    return f"ringmount: {identity.name} logs from this level on: {levels}"
