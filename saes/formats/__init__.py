"""Dictionary files: one module per published layout, listed in `table`."""
