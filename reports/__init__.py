"""The report: tables, plots and the page; no torch."""
