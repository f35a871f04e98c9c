"""What is written about the tests, beside them and in the documentation."""

import os
import pathlib
import re

from deviations import BEHAVIOUR
from document import PAGE, page


def test_no_deviation_is_of_a_test_that_is_no_more():
    texts = [path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py")]
    tests = {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert {name for table in BEHAVIOUR.values() for name in table} <= tests


def test_the_page_says_what_the_tests_know():
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "set UPDATE_GOLDEN=1 to renew the page"
