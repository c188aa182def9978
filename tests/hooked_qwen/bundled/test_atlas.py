"""An invented country: no name stands for two things, and every region has the same facts."""

from collections import Counter

from hooked_qwen.bundled.atlas import REGIONS

TOWNS = [town for region in REGIONS for town in region.towns]


def test_no_name_stands_for_two_things():
    named = Counter([town.name for town in TOWNS])
    named += Counter([name for region in REGIONS for name in (region.name, region.capital)])
    assert set(named.values()) == {1}


def test_a_town_knows_its_region_and_capital():
    for region in REGIONS:
        assert len(region.towns) == 8
        assert {(town.region, town.capital) for town in region.towns} == {
            (region.name, region.capital)
        }


def test_a_colour_does_not_tell_a_region():
    assert min(Counter(region.colour for region in REGIONS).values()) >= 2
