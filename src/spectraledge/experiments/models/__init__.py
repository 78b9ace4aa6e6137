"""What learns it: the networks of the catalogued experiments."""
