"""Differences between layers: read from an overlay upper directory, or found by comparing trees.

`native` reads the upper, `naive` compares two directories; both produce `records`. Driver authors
can use `naive.NaiveDiffer` with any get and put.
"""
