"""What differs between layers: read from an overlay upper directory, or found by comparing trees.

`native` reads the upper, `naive` compares two directories, `lowers` sees through stacked lower
directories without a mount. Driver authors can reuse `naive.NaiveDiffer` over any get and put.
"""
