"""How the shipped bundle was made: films in, bundle out, one command a step; not in the wheel."""
