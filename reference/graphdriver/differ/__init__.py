"""What differs between layers: read from an overlay upper directory, or found by comparing trees.

`native` reads the upper, `naive` compares two directories; both say it in `records`. Driver authors
can reuse `naive.NaiveDiffer` over any get and put.
"""
