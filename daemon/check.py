"""`ringmount check`: what a mount's file means on this machine, without mounting anything."""

import os

from ringmount.config.longform import effective
from ringmount.config.load import read_document
from ringmount.config.units import format_cpulist, format_size
from ringmount.daemon import machine, run
from ringmount.workers.api import HandlePolicy


def check(path: str) -> str:
    """The effective settings as YAML, and what they come to here. Raises ConfigError, Failure."""
    document = read_document(path)
    config = document.config()
    description = run.describe(document, config, os.path.dirname(os.path.abspath(path)))
    cpus = machine.cpus()
    single = HandlePolicy(description.handle_policy) is HandlePolicy.SINGLE
    workers = machine.worker_cpus(config, cpus, single)
    plan = machine.plan(config, cpus, workers)
    entry = format_size(plan.payload)
    where = "every CPU" if single else f"CPU {format_cpulist(workers)}"
    return "\n".join(
        [
            effective(config).rstrip("\n"),
            "",
            f"# {path} is valid.",
            f"# Workers: {len(workers)}, on {where}; handles: {description.handle_policy};"
            f" {_how(description.is_async, description.threads)}.",
            f"# Rings: {len(plan.depths)} queues, {plan.entries} entries of {entry} and a page each:"
            f" up to {format_size(plan.buffer_bytes)} of memory (cap {format_size(machine.ring_memory_cap(config))}).",
        ]
    )


def _how(is_async: bool, threads: int) -> str:
    if threads:
        return f"methods on {threads} threads a worker"
    return "async methods" if is_async else "plain methods"
