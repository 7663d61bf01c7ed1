"""The report: a page, a table in the terminal, pictures and files."""
