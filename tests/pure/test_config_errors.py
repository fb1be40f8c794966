"""ringmount.config.errors"""

from hypothesis import given
from hypothesis import strategies as st

from ringmount.config.errors import ConfigError, child, grouped, one_line


def test_an_error_reads_file_line_column_path_message_hint() -> None:
    error = ConfigError("Expected x", file="a.yaml", line=3, column=7, path="timeouts.attr", hint="write x")
    assert str(error) == "a.yaml:3:7: timeouts.attr: Expected x; write x"


def test_an_error_leaves_out_what_it_does_not_know() -> None:
    assert str(ConfigError("Cannot read", file="a.yaml")) == "a.yaml: Cannot read"
    assert str(ConfigError("Cannot read")) == "Cannot read"


@given(st.text(), st.text(), st.text(), st.text())
def test_an_error_is_one_printable_line_whatever_it_is_about(message: str, file: str, path: str, hint: str) -> None:
    line = str(ConfigError(message, file=file, line=1, column=1, path=path, hint=hint))
    assert line.isprintable()


def test_grouped_errors_come_in_the_order_of_the_file() -> None:
    late, early = ConfigError("late", line=2, column=1), ConfigError("early", line=1, column=9)
    assert grouped([late, early]).all() == (early, late)
    assert early.others == (late,)
    assert late.others == ()


def test_key_paths_quote_what_is_no_plain_word() -> None:
    assert child("", "options") == "options"
    assert child("options", "source") == "options.source"
    assert child("cpus", 2) == "cpus[2]"
    assert child("options", "a.b") == 'options["a.b"]'


def test_one_line_escapes_control_characters_and_keeps_letters() -> None:
    assert one_line("naïve\n\x1b[1m\ud800") == "naïve\\n\\x1b[1m\\ud800"
