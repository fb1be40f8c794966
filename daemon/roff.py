"""Text as manual pages are written, in the macros of man(7).

Text comes as the command line's help has it: paragraphs between blank lines, indented lines shown as they are, a line
that ends in a colon above what it introduces, and what is to be typed in backquotes.
"""

import re

BOLD, ITALIC, ROMAN = r"\fB", r"\fI", r"\fR"


def escape(text: str) -> str:
    """Text without a meaning to roff. A minus stays one that can be copied to a shell."""
    text = (
        text.replace("\\", r"\e").replace("-", r"\-").replace("`", r"\(ga").replace("^", r"\(ha").replace("~", r"\(ti")
    )
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def bold(text: str) -> str:
    return f"{BOLD}{escape(text)}{ROMAN}"


def italic(text: str) -> str:
    return f"{ITALIC}{escape(text)}{ROMAN}"


def line(text: str) -> str:
    """A line of prose, in which what is in backquotes is bold."""
    parts = re.split(r"`([^`]+)`", " ".join(text.split()))
    made = "".join(bold(part) if i % 2 else escape(part) for i, part in enumerate(parts))
    return re.sub(r"^([.'])", r"\\&\1", made)


def literal(text: str) -> str:
    """Lines as they are, indented."""
    return f".PP\n.RS 4\n.nf\n{escape(text.rstrip())}\n.fi\n.RE"


def prose(text: str) -> str:
    """Paragraphs, and indented lines as they are."""
    made = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        lines = paragraph.split("\n")
        while lines:
            is_shown = lines[0].startswith("  ")
            count = next((i for i, each in enumerate(lines) if each.startswith("  ") != is_shown), len(lines))
            part, lines = lines[:count], lines[count:]
            if is_shown:
                made.append(literal("\n".join(each.removeprefix("  ") for each in part)))
            else:
                made.append(f".PP\n{line(' '.join(part))}")
    return "\n".join(made)


def entry(term: str, text: str) -> str:
    """A term, written in roff, and what it means."""
    return f".TP\n{term}\n{line(text)}"


def section(title: str, *parts: str) -> str:
    return _headed(f".SH {title.upper()}", parts)


def subsection(title: str, *parts: str) -> str:
    return _headed(f".SS {escape(title)}", parts)


def _headed(heading: str, parts: tuple[str, ...]) -> str:
    return "\n".join([heading, "\n".join(part for part in parts if part).removeprefix(".PP\n")])


def page(name: str, number: int, date: str, version: str, summary: str, *sections: str) -> str:
    """A page, which begins with its name and what it is about."""
    title = f'.TH "{escape(name.upper())}" {number} {date} "{escape(version)}" ringmount'
    return "\n".join([title, section("name", f"{escape(name)} \\- {escape(summary)}"), *sections]) + "\n"
