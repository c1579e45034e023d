"""Networks, losses and joint spaces."""
