"""Prompts of a task, of one text, and what nodes are set to for them."""

import pytest

from circuits.discovery.config import DiscoverConfig
from circuits.prompt_files import read_prompts
from circuits.runs.prompt_sets import make_prompts, one_prompt, positions_for, reference_for
from circuits.tasks import make_for

PAIR = one_prompt("The judges by the bucket", "The judge by the bucket", [" are"], [" is"])
CONFIG = DiscoverConfig(estimator="patching", nodes=5)


def test_a_prompt_set_is_that_of_its_task(tmp_path):
    out = tmp_path / "prompts.jsonl"
    options = {"split": "test", "seed": 4}
    made = make_prompts("agreement_nounpp", 6, model="bundled", out=out, **options)
    assert made == make_for("bundled", "agreement_nounpp", 6, **options)
    assert [p.clean for p in read_prompts(out)] == [p.clean for p in made]
    before = out.read_bytes()
    with pytest.raises(ValueError, match=r"prompts\.jsonl is there already"):
        make_prompts("agreement_nounpp", 7, model="bundled", out=out, **options)
    assert out.read_bytes() == before
    make_prompts("agreement_nounpp", 7, model="bundled", out=out, force=True, **options)
    assert len(read_prompts(out)) == 7
    with pytest.raises(ValueError, match="no_such_task"):
        make_prompts("no_such_task", 7, model="bundled", out=tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_nodes_go_to_the_patch_where_there_is_one():
    bare = one_prompt("The judges", None, [" are"], [])
    assert reference_for([PAIR, bare]) == "patch"
    assert reference_for([bare]) == "zero"
    assert (bare.answer, bare.wrong) == ((" are",), ())


def test_positions_are_kept_where_all_prompts_have_one_length():
    short = one_prompt("The judges", "The judge", [" are"], [" is"])
    unequal = one_prompt("The judges by the bucket", "The judge", [" are"], [" is"])
    for prompts, expected in (([PAIR, PAIR], "keep"), ([PAIR, short], "end"), ([short], "keep")):
        assert positions_for(prompts, "bundled", "auto", "refuse") == expected
    assert positions_for([PAIR, unequal], "bundled", "auto", "skip") == "keep"
    with pytest.raises(ValueError, match="clean has"):
        positions_for([PAIR, unequal], "bundled", "auto", "refuse")
