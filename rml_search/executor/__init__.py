"""Where the drivers of a search run: here, or as the jobs of a cluster."""
