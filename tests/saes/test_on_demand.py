"""All dictionaries of a place, one after another, read when asked for."""

import pytest

from saes import suite as suites
from saes.on_demand import load_all
from saes.suite import load_suite
from tests.saes import published
from tests.saes.test_suite import break_weights, save

NAMES = [f"{kind}.{layer}" for kind in ("attn_out", "resid_post") for layer in (0, 1, 2, 5)]


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "suite", *NAMES, "mlp_out.1", "mlp_in.1-mlp_out.1")


def test_several_of_one_site_are_not_chosen_between(tmp_path):
    folder, _ = published.write("saelens", tmp_path)
    (folder / "one").rename(folder / "two")
    published.CASES["saelens"].write(folder)
    with pytest.raises(ValueError, match=r"has 2 dictionaries of mlp_out\.1: .* as one, two"):
        load_suite(folder)
    with pytest.raises(ValueError, match=r"several dictionaries of mlp_out\.1: .* as one, two"):
        load_all(folder)
    assert list(load_suite(folder / "two")) == ["mlp_out.1"]


def test_all_dictionaries_are_those_of_every_folder_read_when_asked_for(folder):
    break_weights(folder, "mlp_in.1-mlp_out.1", "mlp_out.1")
    found = load_all(folder)
    assert set(found.names) == {*NAMES, "mlp_out.1", "mlp_in.1-mlp_out.1"}
    for name in ("mlp_out.1", "mlp_in.1-mlp_out.1"):
        assert found[found.names.index(name)].spec.name == name
    chosen = found.of(load_suite(folder, mlp="transcoder").files.values())
    assert sorted(chosen.names) == sorted([*NAMES, "mlp_in.1-mlp_out.1"])
    assert found[2:4].names == found.names[2:4]


def test_names_that_moved_come_with_a_warning():
    with pytest.warns(DeprecationWarning, match="load_all is in saes.on_demand: import it from"):
        assert suites.load_all is load_all
    with pytest.warns(DeprecationWarning, match="place_of is in saes.formats.finding"):
        assert callable(suites.place_of)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        suites.nothing  # noqa: B018
