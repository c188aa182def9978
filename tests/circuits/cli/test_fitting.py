"""On a narrow terminal tables lose no number: names fold and labels are cut instead."""

import re

import pytest
from rich.console import Console
from rich.table import Column, Table

from circuits.cli import classify, cover, describe, fitting, search, steer, synthesise, tune_tables
from circuits.cli.tables import console
from tests.circuits.printed import printed

NAMED = {"feature": "resid_post.12/40961", "label": "a label of very many words " * 4}
SCORED = {"balanced_accuracy": 0.123}
ENDS = [-0.987, 0.321]
CONTRAST = {
    "how": "contrast", "by": "share", "texts": {"positive": 16, "negative": 16},
    "features_on": 575, "chance": 0.5, "shuffles": 200, "texts_cut": 0, "longest": 9,
    "found": [NAMED | {"on_positive": 0.12, "on_negative": 0.34, "difference": -0.56,
                       "interval": ENDS, "effect": -1.78, "effect_interval": ENDS,
                       "by_chance": 0.123}],
}  # fmt: skip
EFFECT = {
    "how": "effect", "metric": "m", "reference": "zero", "chance": 0.5, "shuffles": 200,
    "agreement": {"pearson": 1},
    "random": {"features": [1], "mean_size": 0.1, "mean_size_of_found": 0.2},
    "found": [NAMED | {"estimate": -0.00123, "exact": -0.00456, "interval": [-0.00789, 0.00321],
                       "positive": -0.00234, "negative": 0.00222,
                       "by_chance": 12.3, "texts_on": 199}],
}  # fmt: skip
METHOD = {"name": "features by output score, chosen with care", "group": "simple",
          "score": 0.12, "concept": 0.34, "fluency": 0.56, "difference": None,
          "chosen": [{"direction": "resid_post.12/40961", "strength": 0.5}]}  # fmt: skip
JUDGED = [{"name": "untrained dictionaries of this shape", "f1": 0.98, "f1_interval": ENDS,
           "auroc": 0.76, "auroc_interval": ENDS, "tpr": 0.54, "tpr_interval": ENDS,
           "choice": "of a site"}]  # fmt: skip
OF_SET = {"samples": 321, "distinct": 1093, "share": 0.0123, "redundancy": 0.0366,
          "redundancy_at": 0.0477, "subset": {"samples": [1, 2], "random_size": 34}}  # fmt: skip
MEAN = {"mean": 0.123, "interval": (-0.456, 0.789)}
ARM = {"behaviour": MEAN, "cross_entropy": {"a held-out file of texts.jsonl": MEAN},
       "activation": {"chosen features": {"prompts": {"pre_activation": -3.21}}},
       "written": []}  # fmt: skip
SCORES = {"accuracy": 0.987, "ahead_interval": ENDS}
ROW = {"texts": 10.7, "covered": 0.8, "asked_covered": 0.7, "fired": 0.48, "shared": 0.05,
       "cosine": 0.55, "shown": 0.14,
       "scores": dict.fromkeys(("stream", "words"), SCORES)}  # fmt: skip


def steered(record):
    console.print(steer.methods_table(record))


TABLES = {
    "contrast": (search.SHOWN["contrast"], CONTRAST),
    "contrast by mean": (search.SHOWN["contrast"], CONTRAST | {"by": "mean"}),
    "effect": (search.SHOWN["effect"], EFFECT),
    "steer": (steered, {"methods": [METHOD | {n: {"value": 0.2, "interval": ENDS} for n in
                                              ("score", "concept", "fluency")}]}),
    "classify": (lambda record: console.print(classify.judged_table(record)),
                 {"methods": JUDGED, "tests": {}}),
    "cover": (cover.sets_table, {
        "keep": 0.95, "at": 40, "sets": ["a_long_name_of_a_set_of_samples"],
        "units": {u: {"sets": {"a_long_name_of_a_set_of_samples": OF_SET}} for u in cover.UNITS}}),
    "tune": (lambda record: tune_tables.tell(record, None, dry_run=False),
             {"arms": {"before": ARM, "chosen features": ARM}, "behaviour": "repetition",
              "against": {}}),
    "synthesise": (synthesise.synthesis_table,
                   {"rows": {"training alone": ROW, "features asked for": ROW}}),
    "describe": (describe.description_table, {
        "features": [NAMED | {"text": "of many words " * 9, "scores": {
            kind: {"own": SCORED} for kind in ("detection", "fuzzing")}}],
        "summary": {kind: {"own": MEAN | {"asked": 1, "answered": 1}}
                    for kind in ("detection", "fuzzing")},
        "by": "a", "judged_by": "b", "left_out": []}),
}  # fmt: skip


def numbers(text: str) -> list[str]:
    return re.findall(r"[-+]?\d+(?:[.,]\d+)*", text)


@pytest.mark.parametrize("verb", TABLES)
def test_every_number_of_a_table_is_whole_at_80_columns(verb):
    show, record = TABLES[verb]
    there, wanted = (numbers(printed(show, record, width=width)) for width in (80, fitting.WIDEST))
    assert len(wanted) >= 5
    assert [number for number in wanted if number not in there] == []
    assert all(wanted.count(number) <= there.count(number) for number in wanted)


def test_a_label_is_cut_and_a_name_folded_before_a_table_grows_too_wide():
    table = Table("name", Column("label", min_width=fitting.LEAST, no_wrap=True), Column("number"))
    table.add_row("two words " * 5, "a label " * 20, "+0.123 to +0.456")
    said = printed(console.print, table, width=80)
    assert max(map(len, said.splitlines())) <= 80
    assert "+0.123 to +0.456" in said
    assert said.count("two") == 5
    assert "…" in said


def test_a_table_of_too_many_numbers_is_as_wide_as_it_must_be():
    table = Table(*(f"{n}" for n in range(20)))
    table.add_row(*("0.1234" for _ in range(20)))
    assert printed(console.print, table, width=80).count("0.1234") == 20


def test_a_table_that_fits_is_left_alone():
    table = Table("a", "b")
    table.add_row("1", "2")
    assert not fitting.fit(table, Console(width=80))
    assert table.width is None
