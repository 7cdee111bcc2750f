"""The stages: pure functions from one record to the next; no database, no clock, no globals, and none imports another."""
