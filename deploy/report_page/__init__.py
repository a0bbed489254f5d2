"""The report of an experiment as one HTML file that needs nothing else: no network, no scripts."""

from deploy.report_page.page import page_of, write_page

__all__ = ["page_of", "write_page"]
