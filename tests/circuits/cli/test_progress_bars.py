"""Where standard error is no terminal, a line every thirty seconds says how far the work is."""

import threading
import time

import pytest

from circuits.cli.progress_bars import PlainLines, bars


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def told(clock):
    written = []
    lines = PlainLines(written.append, clock)
    lines.written = written
    return lines


def test_a_line_every_thirty_seconds_says_what_is_left(told, clock):
    for done in range(101):
        told.report("training", done, 100, f"loss {done}")
        clock.now += 1
    assert len(told.written) == 100 // 30 + 1
    assert told.written[0] == "training 30/100 (30%), 0:30 so far, 1.0 a second, 1:10 left; loss 30"
    assert told.written[-1] == "training 100/100 (100%), done in 1:40, 1.0 a second; loss 100"


def test_what_was_done_before_counts_in_no_rate(told, clock):
    told.report("training", 5000, 6000)
    clock.now += 60
    told.report("training", 5030, 6000)
    assert told.written == ["training 5,030/6,000 (84%), 1:00 so far, 2.0 s each, 32:20 left"]


def test_a_long_step_is_told_of_too(told, clock):
    told.report("evaluating", 0, 4)
    for _ in range(91):
        told.tick()
        clock.now += 1
    assert told.written == [f"evaluating 0/4 (0%), {s} so far" for s in ("0:30", "1:00", "1:30")]


def test_one_thing_after_another(told, clock):
    for what in ("training", "thresholds", "evaluating"):
        for done in range(4):
            told.report(what, done, 3)
            clock.now += 3
    told.report("quick", 1, 1)
    told.end()
    assert [line.split()[0] for line in told.written] == ["training", "thresholds", "evaluating"]
    assert all("done in 0:09" in line for line in told.written)


def test_what_is_done_is_told_of_once(told, clock):
    told.report("edges", 0, 2)
    for _ in range(3):
        clock.now += 40
        told.report("edges", 2, 2)
        told.tick()
    told.end()
    assert told.written == ["edges 2/2 (100%), done in 0:40, 20.0 s each"]


def test_what_stops_half_way_leaves_a_last_line(told, clock):
    told.report("training", 0, 10)
    clock.now += 8
    told.report("training", 4, 10)
    told.end()
    assert told.written == ["training 4/10 (40%), 0:08 so far, 2.0 s each, 0:12 left"]


def test_hours(told, clock):
    told.report("training", 0, 10)
    clock.now += 3723
    told.report("training", 1, 10)
    assert "1:02:03 so far" in told.written[0]


def test_standard_error_gets_lines_where_it_is_no_terminal(capsys):
    with bars(every=0.0) as report:
        report("training", 0, 2)
        report("training", 1, 2, "loss 0.5")
    assert "training 1/2 (50%)" in capsys.readouterr().err


def test_a_silent_step_is_watched(capsys):
    with bars(every=0.01, look=0.01) as report:
        report("evaluating", 0, 2)
        capsys.readouterr()
        time.sleep(0.2)
        assert "evaluating 0/2" in capsys.readouterr().err


def test_an_error_ends_the_watch(capsys):
    before = threading.active_count()

    def work():
        with bars() as report:
            report("training", 0, 2)
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        work()
    assert threading.active_count() == before
    assert capsys.readouterr().err == ""
