"""System calls that the standard library lacks, typed, with errno."""
