"""dbench and bonnie++, which are there to measure, but check what they read."""

import re

from programs.places import Place

LOAD = "/usr/share/dbench/client.txt"


def test_dbench(place: Place) -> None:
    for options in (["--timelimit=10", "4"], ["--timelimit=5", "--sync-dir", "--stat-check", "2"]):
        said = place.run("dbench", "-c", LOAD, "-D", place.root, *options)
        assert not re.findall(r"^\[\d+\] .*", said, re.MULTILINE), "a call did not end as in the recorded load"


def test_bonnie(place: Place) -> None:
    place.run(
        "bonnie++", "-d", place.root, "-s", "256M", "-r", "128M", "-f1", "-n", "1:4000:10:4", "-u", place.user, "-q"
    )
