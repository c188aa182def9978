"""What `circuits steer` prints: a row for each method, with what it chose."""

from circuits.cli.steer import methods_table
from circuits.cli.tables import console
from tests.circuits.printed import printed


def test_a_method_has_its_scores_with_their_ends_and_what_was_chosen():
    figure = {"value": 0.25, "interval": [0.125, 0.5]}
    none = {"value": None, "interval": None}
    chosen = [{"direction": "resid_post.3/86", "strength": 0.5}] * 2
    methods = [{"name": "a feature", "score": figure, "concept": figure, "fluency": none,
                "chosen": chosen}]  # fmt: skip
    said = printed(console.print, methods_table({"methods": methods})).splitlines()
    (line,) = [line for line in said if line.startswith("a feature")]
    assert line.count("0.25 [0.12, 0.50]") == 2
    assert "–" in line
    assert "resid_post.3/86 0.5; resid_post.3/86 0.5" in line
