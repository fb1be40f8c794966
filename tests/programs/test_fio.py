"""fio: four jobs write blocks that tell where they belong and have a checksum, read them back and check."""

import pytest
from programs.places import Place

ENGINES = {
    "psync": ["--ioengine=psync"],
    "psync-synced": ["--ioengine=psync", "--fsync=64", "--fdatasync=32"],
    "libaio-direct": ["--ioengine=libaio", "--direct=1", "--iodepth=16"],
    "io_uring": ["--ioengine=io_uring", "--iodepth=16"],
    "io_uring-direct": ["--ioengine=io_uring", "--direct=1", "--iodepth=16"],
    "mmap": ["--ioengine=mmap"],
    "pvsync2": ["--ioengine=pvsync2"],
    "vsync": ["--ioengine=vsync", "--iodepth=8"],
    "posixaio": ["--ioengine=posixaio", "--iodepth=8"],
}
COMMON = ["--numjobs=4", "--verify=crc32c", "--verify_fatal=1", "--group_reporting"]


@pytest.mark.parametrize("engine", ENGINES)
def test_fio(place: Place, engine: str) -> None:
    odd_sizes = ["--bs=8k"] if "direct" in engine else ["--bsrange=512-128k", "--blockalign=512"]
    for pattern, sizes in (("randwrite", ["--bs=4k"]), ("write", ["--bs=64k"]), ("randrw", odd_sizes)):
        place.run("fio", *COMMON, *ENGINES[engine], "--name=own", "--size=16m", f"--rw={pattern}", *sizes)
    if engine != "mmap":  # fio maps the wrong parts of a file that its jobs divide among them, natively too
        place.run("truncate", "--size=16M", "shared")
        part = ["--name=shared", "--filename=shared", "--size=4m", "--offset_increment=4m"]
        place.run("fio", *COMMON, *ENGINES[engine], *part, "--rw=randwrite", "--bs=4k")
