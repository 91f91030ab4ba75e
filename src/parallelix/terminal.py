"""What commands print: plain lines that read well at 80 columns, coloured only on a terminal.

Symbols: `//` headings, `·` facts, `✓` done, `●` live, `!` warnings, `✗` refusals. NO_COLOR and TERM=dumb switch colour
off, FORCE_COLOR on. Errors go to standard error; `--json` puts one object (or one a line) on standard output instead.
"""

from __future__ import annotations

import os
import shutil
import sys
import unicodedata
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import TextIO

import msgspec

PIPE_COLUMNS = 10_000
"""Into a pipe nothing is broken, so that `grep` finds label and value on one line."""

_COLOURS = {"//": "2", "✓": "32", "●": "32", "!": "33", "✗": "31"}
_TURNS_TEXT_AROUND = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_CLEAR_LINE = "\r\x1b[2K"


class Console:
    """One command's output."""

    def __init__(self, out: TextIO, err: TextIO, *, json: bool = False) -> None:
        self.json = json
        self._out = out
        self._err = err
        self._live = ""
        self.interactive = out.isatty() and not json and os.environ.get("TERM") != "dumb"
        self._colour = _wants_colour(out)
        self._error_colour = _wants_colour(err)

    @classmethod
    def standard(cls, *, json: bool) -> Console:
        for stream in (sys.stdout, sys.stderr):
            # A terminal in the C locale shows ? for a symbol rather than ending the command.
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")  # pyright: ignore[reportUnknownMemberType, reportAttributeAccessIssue]
        return cls(sys.stdout, sys.stderr, json=json)

    @property
    def columns(self) -> int:
        if self._out.isatty() or os.environ.get("COLUMNS", "").isdecimal():
            return max(40, shutil.get_terminal_size().columns)
        return PIPE_COLUMNS

    def heading(self, text: str) -> None:
        self._print("//", text)

    def fact(self, label: str, value: str, *, label_columns: int) -> None:
        """`· label   value`; a value that does not fit goes whole onto a line of its own, so it can be copied."""
        for line in two_columns(f"· {label}", value, label_columns=label_columns + 2, columns=self.columns):
            self.plain(line)

    def done(self, text: str) -> None:
        self._print("✓", text)

    def warn(self, text: str) -> None:
        self._print("!", text)

    def cross(self, text: str) -> None:
        self._print("✗", text)

    def pair(self, label: str, value: str) -> None:
        """`   label        value`, below a heading."""
        for line in two_columns(f"   {label}", value, label_columns=15, columns=self.columns):
            self.plain(line)

    def marked(self, symbol: str, label: str, value: str, *, label_columns: int) -> None:
        """`✓ label   value`; a long value goes on below itself."""
        indent = label_columns + 3
        lines = wrapped(visible(value), columns=self.columns - indent)
        for index, line in enumerate(lines):
            lead = f"{_coloured(symbol, self._colour)} {label:<{label_columns}} " if index == 0 else " " * indent
            self._write(lead + line)

    def plain(self, text: str) -> None:
        self._write(visible(text))

    def stream(self, text: str) -> None:
        """A piece of somebody else's text as it comes, without a line break of ours."""
        if not self.json:
            self.clear_live()
            print(visible(text) if self._out.isatty() else text, end="", file=self._out, flush=True)

    def live(self, text: str) -> None:
        """One line that is written over as things change; only on a terminal."""
        if self.interactive:
            self._live = text
            shown = visible(text)[: self.columns - 3]
            print(_CLEAR_LINE + _coloured("●", self._colour) + " " + shown, end="", file=self._out, flush=True)

    def clear_live(self) -> None:
        """Takes the live line away, for what was only progress."""
        if self._live:
            self._live = ""
            print(_CLEAR_LINE, end="", file=self._out, flush=True)

    @contextmanager
    def download(self, name: str) -> Generator[Callable[[str, int, int], None]]:
        """Shows a download: a bar on a terminal, elsewhere a line when its step changes. Yields what is called with
        each step's status, completed and total bytes."""
        if not self.interactive:
            yield self._download_lines(name)
            return
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

        rich = RichConsole(file=self._out, no_color=not self._colour)
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*columns, console=rich, transient=True) as progress:
            task = progress.add_task(name, total=None)

            def show(status: str, completed: int, total: int) -> None:
                progress.update(task, description=f"{name} · {status}"[:40], completed=completed, total=total or None)

            yield show

    def _download_lines(self, name: str) -> Callable[[str, int, int], None]:
        last = ""

        def show(status: str, _completed: int, _total: int) -> None:
            nonlocal last
            if status != last:
                last = status
                self.plain(f"· {name}: {status}")

        return show

    def value(self, value: msgspec.Struct) -> None:
        """The answer to --json: one object on one line."""
        if self.json:
            print(msgspec.json.encode(value).decode(), file=self._out, flush=True)

    def error(self, code: str, message: str) -> None:
        self._end_live()
        if self.json:
            print(msgspec.json.encode({"error": code, "message": message}).decode(), file=self._err, flush=True)
        else:
            self._print_error("✗", f"{code}: {message}")

    def note(self, text: str) -> None:
        """Something a person should know, kept out of what a script reads."""
        self._end_live()
        self._print_error("!", text)

    def remark(self, text: str) -> None:
        """A plain fact beside the answer itself, which a pipe gets alone."""
        self._end_live()
        if not self.json:
            self._print_error("·", text)

    def _print(self, symbol: str, text: str) -> None:
        for index, line in enumerate(wrapped(visible(text), columns=self.columns - len(symbol) - 1)):
            lead = _coloured(symbol, self._colour) if index == 0 else " " * len(symbol)
            self._write(f"{lead} {line}")

    def _write(self, line: str) -> None:
        if not self.json:
            self._end_live()
            print(line, file=self._out, flush=True)

    def _print_error(self, symbol: str, text: str) -> None:
        """One line, which only a terminal sees broken."""
        columns = shutil.get_terminal_size().columns - 2 if self._err.isatty() else PIPE_COLUMNS
        lines = "\n  ".join(wrapped(visible(text), columns=columns))
        print(f"{_coloured(symbol, self._error_colour)} {lines}", file=self._err, flush=True)

    def _end_live(self) -> None:
        if self._live:
            self._live = ""
            print(file=self._out, flush=True)


def visible(text: str) -> str:
    """Without what could move a terminal's cursor, colour it or turn its text around; tabs and line breaks stay.

    What is shown may be a stranger's or a model's words, or a line of a log.
    """
    return "".join("\ufffd" if _is_command(each) else each for each in text)


def _is_command(character: str) -> bool:
    if character in "\n\t":
        return False
    return unicodedata.category(character) in ("Cc", "Cs") or character in _TURNS_TEXT_AROUND


def two_columns(label: str, value: str, *, label_columns: int, columns: int) -> Iterable[str]:
    line = f"{label:<{label_columns}} {value}"
    if len(line) <= columns:
        return [line]
    return [label, *(f"   {part}" for part in wrapped(value, columns=columns - 3))]


def wrapped(text: str, *, columns: int) -> list[str]:
    """Broken at spaces only: paths, hashes and URLs stay whole."""
    import textwrap

    return textwrap.wrap(text, max(20, columns), break_long_words=False, break_on_hyphens=False) or [""]


def _wants_colour(stream: TextIO) -> bool:
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR"):
        return True
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def _coloured(symbol: str, colour: bool) -> str:
    return f"\x1b[{_COLOURS[symbol]}m{symbol}\x1b[0m" if colour and symbol in _COLOURS else symbol


def client_version() -> str:
    """The version of this program."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("parallelix")
    except PackageNotFoundError:
        return "0.0.0"
