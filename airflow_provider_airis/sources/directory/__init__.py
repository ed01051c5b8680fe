"""Directories: what their entries mean, who belongs to which group, what has changed, and what is known of them."""
