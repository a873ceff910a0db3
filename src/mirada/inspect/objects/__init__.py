"""Objects without labels: what the last layer of a backbone knows of where things are."""
