"""docs/supported_devices.md is what the library does: steps are built on devices, or refused in the page's words."""

import pytest

from supported_devices import CELLS, PAGE, PRESETS, page, read, refusal


def test_the_page_is_that_of_its_cells():
    text = PAGE.read_text(encoding="utf-8")
    cells = {cell: word for preset in PRESETS for cell, word in read(text, preset).items()}
    assert page(cells) == text and set(cells) == set(CELLS)


@pytest.mark.slow
@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_device_refuses(preset):
    cells = read(PAGE.read_text(encoding="utf-8"), preset)
    assert {cell: refusal(cell) for cell in cells} == cells


@pytest.mark.parametrize("preset", PRESETS)
def test_what_a_device_refuses_of_some_cells(preset):
    """One in nine: the whole page takes minutes."""
    cells = dict([*read(PAGE.read_text(encoding="utf-8"), preset).items()][::9])
    assert {cell: refusal(cell) for cell in cells} == cells
