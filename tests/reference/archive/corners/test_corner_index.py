"""Every row of the table of corner cases has a test."""

import re
from pathlib import Path

ROWS = set(range(1, 71))


def test_each_of_the_seventy_rows_has_a_test_with_its_number() -> None:
    here = Path(__file__).parent
    tests = "".join(module.read_text() for module in here.glob("test_corner_*.py"))

    tested = {int(number) for number in re.findall(r"def test_c(\d\d)_", tests)}

    assert ROWS - tested == set()
