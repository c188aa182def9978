"""What a command may replace: its own result, and nothing that a user made."""

import json

import pytest

from circuits.runs.overwrite import (
    MADE_FROM,
    ablations_in,
    added_to,
    check_beside,
    check_page,
    check_record,
    check_run,
    check_text,
    digest,
    is_made_from,
    plain,
    signed,
)

SAME = {"seed": 3, "sites": ("a", "b"), "model_hash": None}


def made():
    return SAME


def write(path, record):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(record if isinstance(record, str) else json.dumps(record), encoding="utf-8")
    return path


@pytest.fixture
def run(tmp_path):
    """A finished run, as its manifest and graph say."""
    folder = tmp_path / "run"
    write(folder / "manifest.json", {"schema": "run/1", **plain(SAME)})
    write(folder / "graph.json", {"schema": "feature-graph/1"})
    return folder


def test_a_digest_tells_apart_what_json_tells_apart():
    parts = [({"a": 1},), ({"a": 2},), ({"a": "1"},), ({"a": 1}, None), (["a", 1],), ()]
    assert len({digest(*part) for part in parts}) == len(parts)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert len(digest("x")) == 16


@pytest.mark.parametrize(
    "there", [{MADE_FROM: {**SAME, "seed": 4}}, {MADE_FROM: {}}, {}, "notes", "[1]", ""]
)
def test_a_record_of_anything_else_stays(tmp_path, there):
    path = write(tmp_path / "result.json", there)
    assert not is_made_from(path, SAME)
    with pytest.raises(ValueError, match=r"result\.json is there already, .* with --force"):
        check_record(path, SAME, force=False)
    check_record(path, SAME, force=True)


def test_a_record_of_the_same_is_replaced(tmp_path):
    """Made from the same as JSON reads it back: tuples are lists there."""
    path = write(tmp_path / "result.json", {MADE_FROM: SAME})
    assert is_made_from(path, SAME)
    check_record(path, SAME, force=False)
    check_record(tmp_path / "absent.json", SAME, force=False)
    assert not is_made_from(tmp_path / "absent.json", SAME)


def test_what_is_written_beside_a_record_replaces_no_file(tmp_path):
    path = tmp_path / "quality.json"
    check_beside(path, ".svg", force=False)
    write(tmp_path / "quality.svg", "mine")
    with pytest.raises(ValueError, match=r"quality\.svg is there already"):
        check_beside(path, ".svg", force=False)
    check_beside(path, ".svg", force=True)
    write(path, {})
    check_beside(path, ".svg", force=False)
    for force in (False, True):
        with pytest.raises(ValueError, match=r"name it \.json, a \.svg is written beside it"):
            check_beside(tmp_path / "quality.svg", ".svg", force=force)


def test_a_text_is_replaced_by_itself_only(tmp_path):
    path = tmp_path / "prompts.jsonl"
    check_text(path, "Ñ\n", force=False)
    path.write_bytes("Ñ\n".encode())
    check_text(path, "Ñ\n", force=False)
    for other in ("N\n", "Ñ", "Ñ\r\n", ""):
        with pytest.raises(ValueError, match="is not the same: .* with --force"):
            check_text(path, other, force=False)
        check_text(path, other, force=True)


def test_a_page_says_what_it_was_made_from_where_nobody_sees_it(tmp_path):
    page = signed("<html></html>\n", digest(1))
    assert page.startswith("<html></html>\n<!--")
    path = write(tmp_path / "page.html", page)
    check_page(path, digest(1), force=False)
    for other in (digest(2), digest()):
        with pytest.raises(ValueError, match=r"page\.html is there already, a page of something"):
            check_page(path, other, force=False)
        check_page(path, other, force=True)


def test_a_run_of_the_same_goes_on_and_another_is_refused(run):
    check_run(run, made, force=False)
    check_run(run.parent / "new", made, force=False)
    for other in ({**SAME, "seed": 4}, {"new": 1}):
        with pytest.raises(ValueError, match="holds a run made from something else: choose"):
            check_run(run, lambda other=other: other, force=False)
        check_run(run, lambda other=other: other, force=True)


def test_what_was_added_to_a_run_is_named_and_stays(run):
    assert added_to(run) == []
    write(run / "verification.json", {})
    write(run / "ablations" / ".partial-1-x" / "result.json", {})
    assert added_to(run) == ["a verification"]
    for name in ("b", "a", "c"):
        write(run / "ablations" / name / "result.json", {})
    assert ablations_in(run) == ["a", "b", "c"]
    assert added_to(run) == ["a verification", "3 ablations (a, b, c)"]
    with pytest.raises(
        ValueError, match=r"holds a verification and 3 ablations \(a, b, c\): choose"
    ):
        check_run(run, made, force=False)
    check_run(run, made, force=True)
    assert added_to(write(run / "ablations" / "a" / "result.json", {}).parent) == [
        "an ablation's result"
    ]


def test_of_many_ablations_the_first_five_are_named(run):
    for i in range(7):
        write(run / "ablations" / f"n{i}" / "result.json", {})
    assert added_to(run) == ["7 ablations (n0, n1, n2, n3, n4)"]


@pytest.mark.parametrize("name", ["manifest.json", "graph.json"])
@pytest.mark.parametrize("there", [{"schema": "activations/1"}, "no JSON", "[]"])
def test_a_folder_of_something_else_is_never_replaced(run, name, there):
    write(run / name, there)
    for force in (False, True):
        with pytest.raises(ValueError, match="something that is no run: choose another --out"):
            check_run(run, made, force=force)


def test_what_was_not_finished_may_be_replaced(run):
    """Without a manifest nothing is known of what it was made from, and nothing asked."""
    (run / "manifest.json").unlink()

    def never():
        raise AssertionError("hashes are only taken where there is something to compare")

    check_run(run, never, force=False)
    write(run / "verification.json", {})
    with pytest.raises(ValueError, match="holds a verification"):
        check_run(run, never, force=False)


def test_a_file_where_the_run_should_be_is_told(run):
    for force in (False, True):
        with pytest.raises(ValueError, match="is a file: give a folder for the run"):
            check_run(run / "graph.json", made, force=force)
