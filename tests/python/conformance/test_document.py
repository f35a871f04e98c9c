"""Compares the table of deviations and its page with the tests."""

import os
import pathlib
import re

from deviations import BEHAVIOUR
from document import PAGE, page


def test_every_deviation_names_a_test():
    texts = [path.read_text() for path in pathlib.Path(__file__).parent.glob("test_*.py")]
    tests = {name for text in texts for name in re.findall(r"^def (test_\w+)", text, re.MULTILINE)}
    assert {name for table in BEHAVIOUR.values() for name in table} <= tests


def test_page_matches_the_table_of_deviations():
    if os.environ.get("UPDATE_GOLDEN"):
        PAGE.write_text(page())
    assert PAGE.read_text() == page(), "set UPDATE_GOLDEN=1 to renew the page"
