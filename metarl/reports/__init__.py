"""Reports show the results of runs in one HTML file, and its numbers as JSON."""
