"""Untrusted MJCF files: scanned, then compiled in a limited child process."""
