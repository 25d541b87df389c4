"""Policies shared: a run as a folder for the Hugging Face Hub, with a model card, and such a folder fetched as data."""
