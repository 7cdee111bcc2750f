"""What runs on the box: from a film's bytes to a ranked worklist."""
