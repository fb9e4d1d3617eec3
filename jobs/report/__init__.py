"""The report: one HTML file that shows what was kept, what was not, and why."""
