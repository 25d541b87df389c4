"""Speed of environments, collection and training, as ratios measured in one run."""
