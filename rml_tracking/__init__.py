"""Where a search is logged beside its own files, each place with the only module that imports its library."""
