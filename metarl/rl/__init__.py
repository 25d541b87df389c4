"""Maths of the learners: returns, objectives, networks, normalisation. Knows no simulator."""
