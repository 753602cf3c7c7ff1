"""What one trial of a search needs: options, runtimes, files, results, data sets and pictures."""
