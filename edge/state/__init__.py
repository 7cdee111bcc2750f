"""What the box remembers: SQLite for rows, content-addressed files for bytes; one table, one file."""
