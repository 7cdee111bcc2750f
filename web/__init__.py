"""What people look at: the clinic's worklist and films as pages of the box itself, without anything from elsewhere."""
