"""The contract of task families, and what may be wrong with a MJCF file."""
