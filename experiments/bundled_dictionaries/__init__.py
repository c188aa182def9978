"""The dictionaries that ship with the bundled model."""
