"""What a user can be told. Every message is one sentence: what is wrong, where, and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of the command line; documented in the README."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_PROVEN = 3
    INTERRUPTED = 130


class LabError(Exception):
    """A failure with a sentence for the user; anything else that escapes is a defect of this project."""

    exit_code = ExitCode.FAILED


class UsageError(LabError):
    """The request itself is wrong; nothing was touched."""

    exit_code = ExitCode.USAGE


class Interrupted(LabError):
    """Ctrl-C or SIGTERM arrived; the sentence says what state was left."""

    exit_code = ExitCode.INTERRUPTED


def nearest(word: str, known: Iterable[str]) -> str:
    """Part of a sentence: `did you mean celery? ` for `celry`, or nothing where no known word is near."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"did you mean {near[0]}? " if near else ""


def last_words(lines: Iterable[str]) -> str:
    """Part of a sentence: the last three lines that a program has said, in one."""
    said = [line.strip() for line in lines if line.strip()]
    return "; ".join(said[-3:])
