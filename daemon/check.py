"""`ringmount check`: what a mount's file means on this machine, without mounting anything."""

import msgspec

from ringmount.config.longform import effective
from ringmount.config.model import MountConfig
from ringmount.config.units import format_cpulist
from ringmount.daemon import datapath, machine, text
from ringmount.daemon.prepared import Prepared, prepare
from ringmount.workers.api import HandlePolicy

HIDDEN = "********"
"""In the place of what is secret."""


def check(path: str) -> str:
    """The effective settings as YAML, with comments on what they come to here. Raises ConfigError, Failure."""
    found = prepare(path)
    facts = text.pairs([("# valid", path), *((f"# {name}", value) for name, value in _facts(found))])
    return f"{effective(without_secrets(found.config, found.description.secret_options))}\n{facts}"


def without_secrets(config: MountConfig, secret: list[str]) -> MountConfig:
    """The settings, fit to be shown: options that the filesystem marks as secret are hidden."""
    options = {name: HIDDEN if name in secret else value for name, value in config.options.items()}
    return msgspec.structs.replace(config, options=options)


def _facts(found: Prepared) -> list[tuple[str, str]]:
    plan, description = found.plan, found.description
    depth = f"{len(plan.depths)} queues, {plan.entries} entries of {text.size(plan.payload)} and a page each"
    cap = text.size(machine.ring_memory_cap(found.config))
    hidden = [f"options.{name}" for name in found.config.options if name in description.secret_options]
    return [
        *([("hidden", f"{', '.join(hidden)}, being secret")] if hidden else []),
        ("workers", workers(found.worker_cpus, found.policy)),
        ("methods", _how(description.is_async, description.threads)),
        ("handles", found.policy.value),
        ("data", data(found)),
        ("rings", depth),
        ("memory", f"{text.size(plan.buffer_bytes)} at most for the rings' buffers, of {cap} allowed"),
    ]


def workers(cpus: tuple[int, ...], policy: HandlePolicy) -> str:
    """How many workers there are, and where."""
    if policy is HandlePolicy.SINGLE:
        return "1 for all CPUs, because the filesystem keeps its state in one process"
    return f"{len(cpus)}, pinned to CPU {format_cpulist(cpus)}"


def data(found: Prepared) -> str:
    """Which way the contents of files take."""
    why_not = datapath.why_not_passthrough(found.config, found.description)
    return "passthrough, if the kernel offers it" if why_not is None else f"userspace ({why_not[0]})"


def _how(is_async: bool, threads: int) -> str:
    if threads:
        return f"may block: {threads} threads a worker"
    return "may wait: async" if is_async else "answer at once"
