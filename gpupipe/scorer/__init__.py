"""A bundle's columns and trees, compiled: a row in some tens of microseconds, and many at once."""
