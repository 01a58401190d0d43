"""Reports that need nothing else: the HTML file of a verification, JUnit XML beside it, and that of a comparison."""

from labs.report.comparison import comparison_page
from labs.report.page import COMPARISON
from labs.report.writer import write_report

__all__ = ["COMPARISON", "comparison_page", "write_report"]
