"""Reports: what runs have shown, as one HTML file and as JSON."""
