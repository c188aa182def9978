"""What a conversion by a map found, as tables."""

import pytest

from circuits.cli.conversion_tables import conversion_tables
from tests.circuits.printed import printed


@pytest.mark.parametrize("scale", ["none", "sqrt(d)/mean norm"])
def test_rows_that_are_not_in_the_order_of_their_fvu_say_why(capsys, scale):
    """A measured scale of 2 % less stands behind the one of the map."""
    way = {"site": "s", "W_enc": "md", "W_dec": "md", "centre": "none", "activation": "topk"}
    rest = {"fvu_interval": None, "worse_interval": None, "given": False, "same": False}
    fvus = {"none": 0.100, "sqrt(d)/mean norm": 0.098 if scale == "none" else 0.103}
    tried = [
        {**way, **rest, "scale": name, "fvu": fvu, "worse": fvu - 0.1, "differs": {"scale": name}}
        for name, fvu in fvus.items()
    ]
    trial = {"tried": tried, "ways": 2, "untrained_fvu": 0.9, "ambiguous": False}
    conversion_tables({"trial": trial, "dictionaries": {}})
    told = "counts 5% worse" in " ".join(capsys.readouterr().out.split())
    assert told == (scale == "none")


def way(fvu, **more):
    given = dict.fromkeys(("site", "W_enc", "W_dec", "scale", "centre", "activation"), "x")
    return {**given, "fvu": fvu, "fvu_interval": None, "worse": fvu - 0.1, "worse_interval": None,
            "given": False, "same": False, "differs": {"scale": "none"}, **more}  # fmt: skip


@pytest.mark.parametrize(
    ("others", "ambiguous", "said"),
    [
        ([], False, "leaves 0.900 at best."),
        ([way(0.1, same=True)], False, "leaves 0.900 at best."),
        ([way(0.15)], False, "The second (scale: none) leaves 50% more."),
        ([way(0.101)], True, "It is ambiguous: with scale: none the FVU is 0.101."),
    ],
)
def test_which_convention_fits_is_said_and_how_sure_that_is(others, ambiguous, said):
    trial = {"tried": [way(0.1), *others], "ways": 2, "untrained_fvu": 0.9, "ambiguous": ambiguous}
    told = " ".join(printed(conversion_tables, {"trial": trial, "dictionaries": {}}).split())
    assert said in told


def test_ways_that_reconstruct_the_same_are_one_row():
    tried = [way(0.1), way(0.3, differs={"scale": "a"}), way(0.3, differs={"scale": "b"})]
    trial = {"tried": tried, "ways": 3, "untrained_fvu": 0.9, "ambiguous": False}
    told = printed(conversion_tables, {"trial": trial, "dictionaries": {}})
    assert told.count("scale: a") >= 1
    assert "scale: b" not in told


def test_a_dictionary_that_was_judged_has_its_fvu_beside_an_untrained_one():
    plain = {"file": "a.npz", "features": 4096, "k": None}
    judged = plain | {"k": 32, "fvu": 0.25, "intervals": {"fvu": [0.2, 0.3]}, "l0": 31.5,
                      "untrained_fvu": 0.9}  # fmt: skip
    assert "FVU" not in printed(conversion_tables, {"dictionaries": {"mlp_out.1": plain}})
    told = printed(conversion_tables, {"dictionaries": {"mlp_out.1": judged}})
    (line,) = [line for line in told.splitlines() if line.startswith("mlp_out.1")]
    assert line.split() == [
        "mlp_out.1",
        "a.npz",
        "4,096",
        "32",
        "31.5",
        "0.250",
        "(0.200..0.300)",
        "0.900",
    ]
