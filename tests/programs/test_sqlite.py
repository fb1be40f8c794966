"""sqlite: four writers at once in each journal mode, two of which die in the middle of a transaction."""

import pytest
from programs.places import Place

ROWS = 250
WRITER = """\
import os, sqlite3, sys
path, first, dies = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "dies"
base = sqlite3.connect(path, timeout=300, isolation_level=None)
base.execute("pragma synchronous=normal")
for n in range(first, first + {rows}):
    base.execute("begin immediate")
    base.execute("insert into numbers values (?, ?, ?)", (n, n * n, os.urandom(3000)))
    base.execute("update total set squares = squares + ?, count = count + 1", (n * n,))
    if dies and n == first + {rows} // 2:
        base.execute("pragma cache_spill=1")
        base.execute("pragma cache_size=1")
        base.executemany("insert into numbers values (?, 0, ?)", [(-n - i, os.urandom(3000)) for i in range(50)])
        os.kill(os.getpid(), 9)
    base.execute("commit")
"""


@pytest.mark.everybody
@pytest.mark.parametrize("journal", ["delete", "truncate", "persist", "wal"])
def test_sqlite(place: Place, journal: str) -> None:
    create = f"pragma journal_mode={journal}; create table numbers (n integer primary key, square, filler);"
    place.run("sqlite3", "base", create + "create table total (squares, count); insert into total values (0, 0);")
    writers = [(ROWS, "lives"), (2 * ROWS, "lives"), (3 * ROWS, "dies"), (4 * ROWS, "dies")]
    script = WRITER.format(rows=ROWS)
    processes = [place.start("/usr/bin/python3", "-c", script, "base", str(n), fate) for n, fate in writers]
    said = [process.communicate(timeout=600)[0] for process in processes]
    assert (said, [process.returncode for process in processes]) == ([""] * 4, [0, 0, -9, -9])
    assert place.run("sqlite3", "base", "pragma integrity_check") == "ok\n"
    query = "select count(*), sum(square) from numbers; select count, squares from total;"
    written = {"lives": ROWS, "dies": ROWS // 2}
    numbers = [n for first, fate in writers for n in range(first, first + written[fate])]
    expected = f"{len(numbers)}|{sum(n * n for n in numbers)}\n"
    assert place.run("sqlite3", "base", query) == 2 * expected
    place.run("sqlite3", "base", "vacuum; reindex; pragma wal_checkpoint(truncate)")
    assert place.run("sqlite3", "base", "pragma integrity_check; " + query) == "ok\n" + 2 * expected
