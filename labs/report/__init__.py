"""The report of a verification: one HTML file that needs nothing else, and JUnit XML beside it."""

from labs.report.writer import write_report

__all__ = ["write_report"]
