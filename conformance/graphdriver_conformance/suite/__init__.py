"""The tests. Each verifies one requirement; run them with `pytest --driver=SPEC`."""
