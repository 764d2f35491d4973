"""One row, scored in some tens of microseconds: the columns and trees of a bundle, compiled."""
