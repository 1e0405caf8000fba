"""The table of families, cell by cell."""

import pytest
from paths import ROOT
from text_families import FAMILIES
from text_families.sweep import TECHNIQUES, cell

TABLE = (ROOT / "docs" / "families.md").read_text().splitlines()
ROWS = {row.split(" | ")[0].removeprefix("| "): row for row in TABLE if row.count(" | ") == len(TECHNIQUES)}


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_row_of_a_family(name):
    """A cell that isn't `equal` is refused; no cell is wrong or crashes."""
    cells = ROWS[name].removesuffix(" |").split(" | ")[1:]
    assert cells == [cell(name, technique) for technique in TECHNIQUES]


def test_the_table_has_a_row_for_each_family():
    assert FAMILIES.keys() <= ROWS.keys()  # torch before 2.10 can't run all of them
    assert len(FAMILIES) >= 60
