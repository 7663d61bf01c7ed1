from .contact_sheet import contact_sheet_of
from .html import csp_hash, read_asset, read_template
from .page import images_of, write_page
from .terminal import check_report_can_be_written, issues_frame, print_issues, summary, write_report

__all__ = [
    "check_report_can_be_written",
    "contact_sheet_of",
    "csp_hash",
    "images_of",
    "issues_frame",
    "print_issues",
    "read_asset",
    "read_template",
    "summary",
    "write_page",
    "write_report",
]
