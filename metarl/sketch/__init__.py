"""From a MJCF file to a family: what the model says of a robot, and the Python file that is written of it."""
