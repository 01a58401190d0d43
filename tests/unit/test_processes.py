"""The number by which a process knows itself."""

from __future__ import annotations

import os
import subprocess

import psutil

from labs.processes import KEEP_MARKS, LAB_MARK, SERVICE_MARK, marked, marks, number


def test_a_process_of_this_machine_has_one_number() -> None:
    assert number(psutil.Process()) == os.getpid()


def test_marks_find_a_service() -> None:
    with subprocess.Popen(["sleep", "30"], env={**os.environ, **marks("/labs/t", "scheduler")}) as sleeper:
        try:
            assert [process.pid for process in marked("/labs/t", "scheduler")] == [sleeper.pid]
            assert marked("/labs/t", "worker") == []
        finally:
            sleeper.kill()
    assert set(marks("/labs/t", "scheduler")) == {LAB_MARK, SERVICE_MARK, KEEP_MARKS}
