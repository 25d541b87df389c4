"""The command line's verbs, one file each: its options, and `run(words)`, which returns the exit code.

A file imports torch only inside `run`, so that `--help` is instant.
"""
