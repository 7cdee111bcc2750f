"""What an idle process gives back."""

from __future__ import annotations

from highdicom import _standard_utils as tables

from edge import memory


def test_the_attributes_of_every_iod_are_not_kept_by_who_has_nothing_to_do() -> None:
    before = tables.get_module_attribute_map()
    assert tables.get_module_attribute_map.cache_info().currsize == 1
    memory.give_back()
    assert tables.get_module_attribute_map.cache_info().currsize == 0
    assert tables.get_module_attribute_map() == before
