"""Trained policies that come with metarl: a folder each, as of a run, with a policy alone in its checkpoint."""
