"""stress-ng's stressors of files, which check what they did: each ends as it does natively."""

from programs.places import BesideNative, Place

SECONDS = 2
NOT_OURS = {
    "bind-mount": "mounts of its own",
    "binderfs": "mounts of its own",
    "eventfd": "no files",
    "ioprio": "no files",
    "procfs": "the files of /proc",
}
MORE = "aio aiol readahead revio seek mmap mmapmany msync sendfile splice"
"""Of other classes, but with files in the folder."""

SUCCESS, NO_RESOURCE, NOT_IMPLEMENTED = 0, 3, 4
"""Exit codes of stress-ng(1)."""


def stressors(place: Place) -> list[str]:
    """The names of the class filesystem as this version has it."""
    said = place.run("stress-ng", "--class", "filesystem?")
    return sorted({*said.partition("stressors:")[2].split(), *MORE.split()} - set(NOT_OURS))


def outcomes(place: Place) -> dict[str, tuple[int, str]]:
    """By stressor the exit code, and what was said if it is bad."""
    found = {}
    for name in stressors(place):
        command = [f"--{name}", "2", "--timeout", str(SECONDS), "--verify", "--temp-path", str(place.root)]
        code, said = place.attempt("stress-ng", *command, timeout=300)
        found[name] = code, "" if code in (SUCCESS, NO_RESOURCE, NOT_IMPLEMENTED) else said[-2000:]
    return found


def test_stress_ng(place: Place, beside_native: BesideNative) -> None:
    found, expected = beside_native(outcomes, place)
    different = {name for name, (code, _) in found.items() if code != expected[name][0]}
    assert {name: (found[name], expected[name]) for name in different} == {}
    assert sum(code == SUCCESS for code, _ in found.values()) > 40
