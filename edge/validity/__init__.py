"""Validity: what makes a result trustworthy at this site; pure, numbers in and numbers out."""
