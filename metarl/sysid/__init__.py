"""System identification: which task parameters of a family explain a log of its robot."""
