"""What a policy does in physics that it was not trained in."""
