"""Our worlds as other libraries want them."""
