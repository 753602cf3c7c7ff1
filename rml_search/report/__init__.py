"""The report of a search: one HTML page that needs nothing but a browser."""
