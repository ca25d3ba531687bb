"""The figures of a report, one file an idea."""
