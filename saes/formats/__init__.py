"""Dictionary files: one module per published layout."""
