"""The requirements as data, one file for each family."""
