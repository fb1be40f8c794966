"""A real Prometheus, the alert rules and the dashboard of docs/monitoring/, with the metrics of a real mount."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mount.clients import call, cpus, serve_class, status, wait_for, worker_pids
from mount.test_metrics import MISS, free_port, scrape, scraped

MONITORING = Path(__file__).parents[2] / "docs/monitoring"
RULES = yaml.safe_load((MONITORING / "ringmount.rules.yml").read_text())["groups"][0]["rules"]
DASHBOARD = json.loads((MONITORING / "ringmount.dashboard.json").read_text())
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
NAME = re.compile(r"\bringmount_\w+")
CPUS = cpus()
PATIENCE = 30.0


def tool(name: str) -> str:
    """The program, as .ci/setup put it beside the interpreter."""
    path = Path(sys.executable).with_name(name)
    if not path.exists():
        pytest.skip(f"needs {name} in .venv/bin: .ci/setup dev takes it out of Debian's package")
    return str(path)


def checked(*command: str, **options: Any) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return str(done.stdout)


class Prometheus:
    """A server that scrapes one target every second."""

    def __init__(self, folder: Path, target: str) -> None:
        self.at = f"127.0.0.1:{free_port()}"
        job = {"job_name": "ringmount", "static_configs": [{"targets": [target]}]}
        settings = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(MONITORING / "ringmount.rules.yml")],
            "scrape_configs": [job],
        }
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump(settings))
        self.log = folder / "prometheus.log"
        arguments = [
            f"--config.file={file}",
            f"--storage.tsdb.path={folder / 'tsdb'}",
            f"--web.listen-address={self.at}",
        ]
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [tool("prometheus"), *arguments], stdout=out, stderr=subprocess.STDOUT, cwd=folder
            )

    def get(self, path: str, **parameters: str) -> Any:
        """What its HTTP API answers; None while it does not."""
        assert self.process.poll() is None, self.log.read_text()
        with contextlib.closing(http.client.HTTPConnection(self.at, timeout=PATIENCE)) as connection:
            try:
                connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
                answer = json.loads(connection.getresponse().read())
            except (OSError, http.client.HTTPException, ValueError):
                return None
        return answer["data"] if answer["status"] == "success" else None

    def value(self, query: str) -> float | None:
        """The value of a query with one result."""
        found = self.get("query", query=query)
        results = found["result"] if found else []
        return float(results[0]["value"][1]) if len(results) == 1 else None


@contextlib.contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    server = Prometheus(folder, target)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def told_of(text: str) -> set[str]:
    """The names of metrics in a text, as the collector has them."""
    return {re.sub("_(bucket|count|sum)$", "", name) for name in NAME.findall(text)}


@pytest.mark.may_skip("prometheus")
def test_prometheus_has_what_was_done(tmp_path: Path) -> None:
    tool("prometheus")
    target = f"127.0.0.1:{free_port()}"
    with serve_class(tmp_path, "Tree", metrics=target) as mount, prometheus(tmp_path, target) as server:
        call(MISS, mount.path, 30, cpu=CPUS[0])
        lookups = f'sum(ringmount_request_seconds_count{{mount="{mount.name}", opcode="LOOKUP"}})'
        wait_for(lambda: server.value('up{job="ringmount"}') == 1, "Prometheus reaches the mount", PATIENCE)
        wait_for(lambda: server.value(lookups) == 30, "Prometheus has the requests", PATIENCE)
        call(MISS, mount.path, 25, cpu=CPUS[-1])
        wait_for(lambda: server.value(lookups) == 30 + 25, "and exactly the others", PATIENCE)
        os.kill(worker_pids(mount)[0], signal.SIGKILL)
        deaths = f'sum(ringmount_worker_deaths_total{{mount="{mount.name}"}})'
        wait_for(lambda: server.value(deaths) == 1, "Prometheus has the death", PATIENCE)
        wait_for(lambda: server.value("ringmount_workers_serving == ringmount_workers") == len(CPUS), "", PATIENCE)
        wait_for(lambda: all(worker["state"] == "serving" for worker in status(mount)["workers"]))
        rules = server.get("rules")["groups"][0]["rules"]
        assert {rule["name"] for rule in rules} == {rule["alert"] for rule in RULES}
        wait_for(lambda: all(r["health"] == "ok" for r in server.get("rules")["groups"][0]["rules"]), "", PATIENCE)
        for query in map(with_values, QUERIES):
            assert server.get("query", query=query) is not None, query


def with_values(query: str) -> str:
    """A dashboard's query, with what Grafana puts in."""
    return query.replace("$mount", ".*").replace("$__rate_interval", "1m").replace("$__range", "1h")


@pytest.mark.may_skip("promtool")
def test_promtool_finds_no_fault(tmp_path: Path) -> None:
    """With the rules, their tests, and the dashboard's queries (as rules)."""
    promtool = tool("promtool")
    checked(promtool, "check", "rules", str(MONITORING / "ringmount.rules.yml"))
    checked(promtool, "test", "rules", "ringmount.rules.test.yml", cwd=MONITORING)
    rules = [{"record": f"query:{number}", "expr": with_values(query)} for number, query in enumerate(QUERIES)]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    checked(promtool, "check", "rules", str(file))


def test_documentation_rules_and_dashboard_speak_of_the_metrics_that_there_are(tmp_path: Path) -> None:
    target = str(tmp_path / "metrics.sock")
    with serve_class(tmp_path, "Tree", metrics=target, memory_limit="1GiB") as mount:
        call(MISS, mount.path, 1, cpu=CPUS[0])
        scraped(target)
        there = {f"ringmount_{name.partition(' ')[0]}" for name in scrape(target)}
    there = {re.sub("_(bucket|count|sum)$", "", name) for name in there}
    table = (MONITORING / "README.md").read_text().partition("## The metrics")[2]
    assert told_of(table) == there
    assert told_of("\n".join(QUERIES)) <= there
    assert told_of("\n".join(rule["expr"] for rule in RULES)) <= there
    tested = (MONITORING / "ringmount.rules.test.yml").read_text()
    assert all(rule["alert"] in tested for rule in RULES)
