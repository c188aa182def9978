"""The command line: `circuits VERB`, one module for each noun."""
