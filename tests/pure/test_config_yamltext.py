"""ringmount.config.yamltext"""

from collections.abc import Iterator

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ringmount.config.errors import MAX_MISTAKES, ConfigError
from ringmount.config.yamltext import MAX_DEPTH, MAX_KEY, parse


@pytest.fixture(scope="module", autouse=True, params=["libyaml", "python"])
def parser(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both of PyYAML's parsers: the one in C may be missing on a machine."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "python":
            patch.delattr(yaml, "CSafeLoader")
        yield


def mistakes(text: str) -> tuple[ConfigError, ...]:
    try:
        parse(text, "f")
    except ConfigError as error:
        return error.all()
    return ()


def refused(text: str) -> list[str]:
    return [str(error) for error in mistakes(text)]


def test_data_is_plain() -> None:
    data, _ = parse('a: 1\nb: [1.5, true, null, x, "1"]\nc: {d: ~, e: -3}\nf:\n', "f")
    assert data == {"a": 1, "b": [1.5, True, None, "x", "1"], "c": {"d": None, "e": -3}, "f": None}


def test_every_key_and_value_has_a_position() -> None:
    _, positions = parse("a: 1\nb:\n  - x\n  - {c: é, d: 2}\ne:\n", "f")
    assert positions.keys == {"a": (1, 1), "b": (2, 1), "b[1].c": (4, 6), "b[1].d": (4, 12), "e": (5, 1)}
    assert positions.of_value("a") == (1, 4)
    assert positions.of_value("b[0]") == (3, 5)
    assert positions.of_value("b[1].d") == (4, 15)
    assert positions.of_value("e") == (5, 3)


def test_what_is_not_there_is_located_at_what_encloses_it() -> None:
    _, positions = parse("# first\na:\n  b: {c: 1}\n", "f")
    assert positions.of_value("a.b.c.d[3]") == (3, 7)
    assert positions.of_value("a.b.x") == (3, 3)
    assert positions.of_value("x") == (2, 1)
    assert positions.of_value('a["x.y"]["') == (2, 1)


def test_a_byte_order_mark_is_ignored() -> None:
    assert parse("\ufeffa: 1\n", "f")[1].of_value("a") == (1, 4)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "f:1:1: The file is empty; give at least mountpoint and filesystem"),
        ("# nothing\n", "f:2:1: The file is empty; give at least mountpoint and filesystem"),
        ("- a\n", "f:1:1: Expected keys and values at the top level; write key: value lines"),
        ("\n  word\n", "f:2:3: Expected keys and values at the top level; write key: value lines"),
        ("a: 1\n---\nb: 2\n", "f:2:1: A second document starts here; one file describes one mount"),
        ("a: 1\nb: 2\na: 3\n", "f:3:1: a: This key is given twice; keep one of them"),
        ("a: {b: 1, b: 2}\n", "f:1:11: a.b: This key is given twice; keep one of them"),
        ("a: &x 1\n", "f:1:4: a: Anchors are not accepted; remove it, or quote a leading &"),
        ("a: *x\n", "f:1:4: a: Aliases are not accepted; write the value out, or quote a leading *"),
        (
            "a: !!python/name:os.system 1\n",
            "f:1:4: a: Tags are not accepted; remove it, or quote a leading !",
        ),
        ("a: !!str 1\n", "f:1:4: a: Tags are not accepted; remove it, or quote a leading !"),
        ("a: ! [1]\n", "f:1:4: a: Tags are not accepted; remove it, or quote a leading !"),
        ("1: x\n", "f:1:1: A key must be text; quote it to make it text"),
        (
            "? [a]\n: x\n",
            "f:1:3: A key must be text; quote it to make it text",
        ),
        ("null: x\n", "f:1:1: A key must be text; quote it to make it text"),
        ("a: 1\nyes: x\n", "f:2:1: 'yes' does not mean the same in every version of YAML; write true or false, "),
        ("&x a: 1\n", "f:1:1: Anchors are not accepted; remove it, or quote a leading &"),
        ("b: {? {c: 1} : 2}\n", "f:1:7: b: A key must be text; quote it to make it text"),
        ('a: "\\0"\n', "f:1:4: a: '\\x00' holds a NUL or half a character; remove the escape"),
        ("a: b\x07\n", "f:1:5: The character U+0007 is not allowed in YAML; remove it"),
        ("a: b\nc: \ud800\n", "f:2:4: The character U+D800 is not allowed in YAML; remove it"),
        ("a: .inf\n", "f:1:4: a: '.inf' is not a finite number; quote it to make it text"),
        ("a: [.nan]\n", "f:1:5: a[0]: '.nan' is not a finite number; quote it to make it text"),
        (f"a: {1 << 64}\n", f"f:1:4: a: '{1 << 64}' does not fit in 64 bits; quote it to make it text"),
    ],
)
def test_refused_with_the_place_and_what_to_do(text: str, error: str) -> None:
    (line,) = refused(text)
    assert line.startswith(error)


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("a: b: c\n", 1, 5),
        ("a: 'x\n\n", 3, 1),
        ("a: [1\nb: 2\n", 2, 2),
        ("a:\n  b: 1\n c: 2\n", 3, 2),
        ("a: @b\n", 1, 4),
        ("a: 1\n\tb: 2\n", 2, 1),
        ("%YAML 2.0\n---\na: 1\n", 1, 1),
    ],
)
def test_text_that_is_not_yaml_is_refused_at_its_place(text: str, line: int, column: int) -> None:
    with pytest.raises(ConfigError, match="Not YAML") as caught:
        parse(text, "f")
    assert (caught.value.line, caught.value.column) == (line, column)


def test_tabs_get_a_hint() -> None:
    assert "indent with spaces" in refused("a:\n\tb: 2\n")[0]


@pytest.mark.parametrize("text", ["yes", "No", "on", "OFF"])
def test_booleans_of_yaml_1_1_are_refused(text: str) -> None:
    meaning = f"{text!r} does not mean the same in every version of YAML"
    assert refused(f"a: {text}\n") == [f"f:1:4: a: {meaning}; write true or false, or quote it to make it text"]


@pytest.mark.parametrize("text", ["0755", "00", "0x10", "0b1", "1_000", "1:30", "0o17", "1e3", "1_0.5", "089"])
def test_numbers_that_versions_of_yaml_disagree_about_are_refused(text: str) -> None:
    assert f"{text!r} does not mean the same in every version of YAML" in refused(f"a: {text}\n")[0]


@pytest.mark.parametrize("text", ["2001-01-01", "2001-12-14t21:59:43.10-05:00", "=", "<<"])
def test_other_values_that_versions_of_yaml_disagree_about_are_refused(text: str) -> None:
    assert "does not mean the same in every version of YAML" in refused(f"a: {text}\n")[0]


def test_what_is_quoted_is_text() -> None:
    assert parse("a: ['yes', \"0755\", '1', '', 'null']\n", "f")[0] == {"a": ["yes", "0755", "1", "", "null"]}
    assert parse("'yes': 1\n", "f")[0] == {"yes": 1}


def test_merge_keys_are_refused() -> None:
    assert any("f:2:1: " in line for line in refused("a: {b: 1}\n<<: {c: 1}\n"))


def test_all_mistakes_are_reported_at_once() -> None:
    assert [line.split(" ")[0] for line in refused("a: yes\nb: &x 1\nc: 0755\nb: 2\n")] == [
        "f:1:4:",
        "f:2:4:",
        "f:3:4:",
        "f:4:1:",
    ]


def test_reading_stops_after_many_mistakes() -> None:
    assert len(refused("a: 1\n" * 1000)) == MAX_MISTAKES


def test_depth_is_limited() -> None:
    assert parse("a: " + "[" * (MAX_DEPTH - 1) + "]" * (MAX_DEPTH - 1), "f")
    assert "More than 20 levels deep" in refused("a: " + "[" * MAX_DEPTH + "]" * MAX_DEPTH)[0]
    assert refused("[" * 100_000)
    assert refused("a: " + "[" * 100_000)


def test_the_length_of_keys_is_limited() -> None:
    assert parse("k" * MAX_KEY + ": 1", "f")
    assert refused("k" * (MAX_KEY + 1) + ": 1") == ["f:1:1: A key of more than 100 characters; shorten it"]


def test_mistakes_before_a_syntax_error_are_reported_with_it() -> None:
    assert [line.split(" ")[0] for line in refused("a: yes\nb: c: d\n")] == ["f:1:4:", "f:2:5:"]


@given(st.text(st.sampled_from("ab: \n-[]{},&*!|>'\"%@`?#\t\\U0x1.\x85\ufeff\ud800")))
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    for error in mistakes(text):
        assert error.line
        assert error.column


PLAIN = st.text(st.sampled_from("0123456789-+._:eExoinfaNyYsutrl~TZ "), min_size=1)


@given(PLAIN)
def test_an_accepted_value_is_what_yaml_1_1_reads(text: str) -> None:
    source = f"a: {text}\n"
    if not mistakes(source):
        assert parse(source, "f")[0] == yaml.safe_load(source)
