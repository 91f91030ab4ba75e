"""The operator's output, which looks like that of every command of ours."""

from __future__ import annotations

from parallelix.terminal import PIPE_COLUMNS, Console, client_version, two_columns, wrapped

__all__ = ["PIPE_COLUMNS", "Console", "client_version", "two_columns", "wrapped"]
