"""`circuits render`: what is written, and what a figure cannot be."""

import pytest

from tests.circuits.conftest import call
from tests.circuits.runs.made_up_run import made_up_run


@pytest.fixture
def run(tmp_path):
    return made_up_run(tmp_path)


def test_every_file_that_is_written_is_told(run):
    done = call("render", run, "--to", "dot,csv")
    assert done.exit_code == 0, done.output
    said = done.output.replace("\n", "")
    for name in ("graph.dot", "nodes.csv", "edges.csv"):
        assert name in said
        assert (run / name).is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--width", "wide"), "'wide' is no width: expected one such as 3.3in"),
        (("--width", "5in"), "the width of a figure is 3.3in or 6.75in"),
        (("--style", "slides", "--width", "3.3in"), "a figure for slides has its own width"),
        (("--nodes", 0), "--nodes is 0: expected 1 or more"),
        (("--to", "svg,docx"), "docx"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_writes_nothing(run, fails, options, message):
    before = sorted(run.rglob("*"))
    assert message in fails("render", run, *options)
    assert sorted(run.rglob("*")) == before
