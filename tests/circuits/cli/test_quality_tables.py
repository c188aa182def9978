"""How good dictionaries are, as tables that fit a terminal."""

from functools import partial

import pytest

from circuits.cli import quality_tables
from circuits.cli.quality_tables import mlp_table, probe_table, quality_table
from tests.circuits.printed import printed as printed_by
from tests.circuits.render.charts.test_quality import figures, record


@pytest.fixture
def said():
    """The lines that a table prints."""

    def lines(table, *arguments, **named) -> list[str]:
        return printed_by(table, *arguments, **named).splitlines()

    return lines


def quality(fvu, **more):
    return {
        "l0": 3.0, "fvu": fvu, "fvu_all": fvu, "cosine": 0.9, "dead": 0.25, "dense": 2,
        "loss_recovered": None, "kl": 0.125,
        "intervals": {"fvu": (fvu - 0.1, fvu + 0.1), "loss_recovered": None},
    } | more  # fmt: skip


def test_a_dictionary_has_a_line_and_each_of_its_controls_one_below(said):
    rows = [quality(0.5, controls={"PCA": quality(0.75)}), quality(0.625)]
    lines = said(quality_tables.quality_table, ["mlp_out.1", "resid_post.2"], rows)
    found = [line.split() for line in lines if "0.125" in line]
    assert [(line[0], line[2]) for line in found] == [
        ("mlp_out.1", "0.500"), ("PCA", "0.750"), ("resid_post.2", "0.625")
    ]  # fmt: skip
    assert all(line.count("–") == 2 for line in found)  # what could not be measured, and its ends


JOINT = {
    "dictionaries": 9,
    "loss_recovered": 0.875,
    "intervals": {"loss_recovered": [0.8, 0.9]},
    "kl": 1.25,
    "ce_clean": 2.0,
    "ce_spliced": 3.0,
    "ce_zero": 10.0,
    "ce_mean": 9.0,
}


@pytest.fixture
def printed():
    return partial(printed_by, quality_table)


def test_every_number_of_the_table_is_whole_and_lines_fit(printed):
    rows = record(24, l0=128.3)
    rows["mlp_in.23-mlp_out.23"]["loss_recovered"] = -12.345
    rows["mlp_in.23-mlp_out.23"]["intervals"]["loss_recovered"] = [-45.678, -10.123]
    text = printed(list(rows), list(rows.values()), JOINT)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 110
    (line,) = [line for line in text.splitlines() if line.startswith("mlp_in.23-mlp_out.23")]
    wanted = "128.3 0.240 0.22..0.29 0.264 0.900 25% 12 -12.345 -45.68..-10.12 0.080"
    assert line.split()[1:] == wanted.split()


def test_controls_are_dim_rows_beneath_their_dictionary(printed):
    rows = record(1)
    lines = printed(list(rows), list(rows.values()), styles=True).splitlines()
    plain = [line for line in lines if not line.startswith("\x1b[2m")]
    dim = [line for line in lines if line.startswith("\x1b[2m")]
    assert [line.split()[1] for line in dim] == ["untrained", "PCA"] * 2 + ["untrained", "linear"]
    assert [line.split()[0] for line in plain[2:]] == list(rows)
    assert lines.index(dim[0]) == lines.index(plain[2]) + 1


def test_what_is_not_known_is_a_dash_and_there_need_be_no_controls(printed):
    text = printed(["mlp_out.1"], [figures(0.1, interval=False)])
    assert text.splitlines()[-1].split().count("–") == 3
    assert "at once" not in text


def test_all_at_once_is_one_line(printed):
    text = printed(["mlp_out.1"], [figures(0.1)], JOINT)
    assert text.splitlines()[-1] == (
        "9 at once: recovered 0.875 (0.80..0.90), KL 1.250, CE 2.000; "
        "spliced 3.000, zero 10.000, mean 9.000"
    )
    lost = JOINT | {"loss_recovered": None, "intervals": {"loss_recovered": None}}
    assert "recovered – (–)" in printed(["mlp_out.1"], [figures(0.1)], lost)


def test_what_mlps_cost_is_told_by_layer_and_at_once():
    rows = record(2)
    cost = {"ce_added": 0.1234, "ce_added_zero": 1.5, "ce_added_mean": -0.0012}
    cost |= {"kl": 0.5, "kl_zero": 2.25, "kl_mean": 12.0}
    cost["intervals"] = {
        "ce_added": [0.1, 0.15],
        "ce_added_zero": [1.0, 2.0],
        "ce_added_mean": None,
    }
    names = [name for name in rows if "-" in name]
    dictionaries = rows | dict.fromkeys(names, cost)
    text = printed_by(mlp_table, names, {"dictionaries": dictionaries, "mlps": cost})
    wanted = "+0.123 0.10..0.15 0.500 +1.500 1.00..2.00 2.250 -0.001 – 12.000"
    for start in ("mlp_out.0", "mlp_out.1", "all at once"):
        (line,) = [line for line in text.splitlines() if line.startswith(start)]
        assert line.removeprefix(start).split() == wanted.split()
    assert max(map(len, text.splitlines())) <= 110


def test_a_probe_names_what_it_chose_where_that_is_little():
    probes = [
        {"reads": reads, "chosen": chosen, "accuracy": accuracy, "interval": [0.5, 0.75]}
        for reads, chosen, accuracy in (
            ("features", [3], 0.625), ("features", list(range(9)), None), ("stream", None, 0.75)
        )
    ]  # fmt: skip
    probing = {"probes": probes, "labels": ["[a]", "b"], "test": 40, "majority": 0.5}
    lines = printed_by(probe_table, {"mlp_out.1": probing}).splitlines()
    one, many, whole = [line.split() for line in lines if "0.50..0.75" in line]
    assert one == ["mlp_out.1", "features", "1", "0.625", "0.50..0.75", "3"]
    assert many == ["features", "9", "–", "0.50..0.75"]
    assert whole == ["stream", "all", "0.750", "0.50..0.75"]
    assert lines[-1] == "[a] or b: 40 texts, always the more frequent 0.500"
