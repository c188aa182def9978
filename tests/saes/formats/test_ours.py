"""Our layout: what is saved is loaded exactly, what is damaged refused by the name of its file."""

import json
import random

import pytest
import torch
from safetensors.torch import load_file, save_file

from hooked_qwen.files import content_hash
from hooked_qwen.sites import Site
from saes.architectures.table import ARCHITECTURES
from saes.dictionary import DictionarySpec
from saes.evaluation import baselines as controls
from saes.formats import ours
from saes.suite import Suite, load_suite
from tests.saes.formats.audit import running_nothing
from tests.toys import random_dictionary

HERE, THERE = Site("mlp_out", 1), Site("mlp_in", 1)
CARD = ours.Card(model={"name": "toy ñ"}, training={"tokens": 3}, metrics={"fvu": 0.25})


def dictionary(source=HERE, target=HERE, architecture="topk", seed=0, skip=False):
    k = 5 if architecture == "topk" else None
    spec = DictionarySpec(source=source, target=target, architecture=architecture, k=k, skip=skip)
    return random_dictionary(spec, seed=seed, dtype=torch.float32)


def same(one, other):
    weights, others = one.state_dict(), other.state_dict()
    return one.spec == other.spec and all(torch.equal(weights[k], others[k]) for k in weights)


@pytest.fixture
def saved(tmp_path):
    folder = tmp_path / "mlp_out.1"
    ours.save_dictionary(dictionary(), folder, card=CARD)
    return folder


@pytest.fixture
def suite(tmp_path):
    """An SAE and a transcoder of one target, and an SAE of another."""
    members = [
        dictionary(seed=1),
        dictionary(source=THERE, seed=2),
        dictionary(Site("attn_out", 0), Site("attn_out", 0), seed=3),
    ]
    folder = tmp_path / "suite"
    for member in members:
        ours.save_dictionary(member, folder / member.spec.name, card=CARD)
    ours.save_suite_index(folder, [member.spec.name for member in members])
    return folder, members


def change(file, **fields):
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_tensors(folder, **tensors):
    file = folder / ours.TENSORS
    weights = load_file(file) | tensors
    save_file({name: value for name, value in weights.items() if value is not None}, file)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("source", [HERE, THERE], ids=["sae", "transcoder"])
def test_what_is_saved_is_loaded_exactly(tmp_path, architecture, source):
    made = dictionary(source, architecture=architecture, skip=True)
    folder = tmp_path / made.spec.name
    ours.save_dictionary(made, folder, card=CARD)
    loaded = ours.load_dictionary(folder)
    assert same(made, loaded)
    assert set(loaded.state_dict()) == set(made.state_dict())
    assert sorted(path.name for path in folder.iterdir()) == [ours.RECORD, ours.TENSORS]
    x = torch.randn(4, 24)
    assert torch.equal(made(x), loaded(x))


def test_the_record_is_the_contract(saved):
    record = json.loads((saved / "dictionary.json").read_text(encoding="utf-8"))
    assert record == {
        "schema": "sparse-dictionary/1",
        "architecture": "topk",
        "k": 5,
        "source": "mlp_out.1",
        "target": "mlp_out.1",
        "model": {"name": "toy ñ"},
        "training": {"tokens": 3},
        "metrics": {"fvu": 0.25},
    }
    shapes = {k: tuple(v.shape) for k, v in load_file(saved / "dictionary.safetensors").items()}
    assert shapes == {"W_enc": (20, 24), "b_enc": (20,), "W_dec": (20, 24), "b_dec": (24,)}


def test_half_precision_is_read_back_as_float32(tmp_path):
    ours.save_dictionary(dictionary(), tmp_path / "a", card=CARD, dtype=torch.bfloat16)
    loaded = ours.load_dictionary(tmp_path / "a")
    assert loaded.W_enc.dtype == torch.float32
    assert torch.equal(loaded.W_enc, dictionary().W_enc.bfloat16().float())


def test_saving_again_replaces_the_folder(saved):
    (saved / "old.txt").write_text("left from before")
    ours.save_dictionary(dictionary(seed=9), saved, card=CARD)
    assert same(ours.load_dictionary(saved), dictionary(seed=9))
    assert not (saved / "old.txt").exists()


def test_the_controls_can_be_saved(tmp_path):
    (neurons,) = controls.neurons(Suite({HERE: dictionary()}, {})).values()
    ours.save_dictionary(neurons, tmp_path / "a", card=CARD)
    assert same(ours.load_dictionary(tmp_path / "a"), neurons)


def test_what_could_not_be_loaded_is_not_saved(tmp_path):
    made = dictionary()
    made.W_enc *= 1e6
    with pytest.raises(ValueError, match="W_enc"):
        ours.save_dictionary(made, tmp_path / "a", card=CARD, dtype=torch.float16)
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("mlp", ["sae", "transcoder"])
def test_where_two_write_one_site_the_choice_picks(suite, mlp):
    folder, (sae, transcoder, attention) = suite
    loaded = load_suite(folder, mlp=mlp)
    assert list(loaded) == ["attn_out.0", str(HERE)]
    assert same(loaded[HERE], sae if mlp == "sae" else transcoder)
    assert same(loaded[Site("attn_out", 0)], attention)
    read = [HERE] if mlp == "sae" else [THERE]
    assert loaded.reads == [Site("attn_out", 0), *read]


@pytest.mark.parametrize("mlp", ["sae", "transcoder"])
def test_a_site_with_one_dictionary_keeps_it(tmp_path, mlp):
    folder = tmp_path / "alone"
    ours.save_dictionary(dictionary(source=THERE), folder, card=CARD)
    assert list(load_suite(folder, mlp=mlp)) == [str(HERE)]


def test_a_folder_that_is_not_listed_does_not_belong(suite):
    folder, (sae, *_) = suite
    ours.save_suite_index(folder, [sae.spec.name])
    assert list(load_suite(folder, mlp="transcoder")) == [str(HERE)]
    assert same(load_suite(folder)[HERE], sae)


def test_a_suite_describes_itself_by_the_content_of_its_files(suite):
    folder, _ = suite
    before = load_suite(folder).describe()
    assert before["mlp_out.1"] == {
        "source": "mlp_out.1",
        "folder": "mlp_out.1",
        "hash": content_hash(folder / "mlp_out.1"),
    }
    change(folder / "mlp_out.1" / ours.RECORD, metrics={})
    after = load_suite(folder).describe()
    assert after["mlp_out.1"]["hash"] != before["mlp_out.1"]["hash"]
    assert after["attn_out.0"] == before["attn_out.0"]
    (folder / "mlp_out.1" / ".partial-x").write_text("left by a killed process")
    assert load_suite(folder).describe() == after


def refuse(folder, file, match):
    """Loading raises ValueError that names the file and what is wrong with it."""
    with pytest.raises(ValueError, match=match) as error:
        ours.load_dictionary(folder)
    assert str(error.value).startswith(str(file))


def test_a_missing_file_is_named(saved):
    (saved / ours.TENSORS).unlink()
    refuse(saved, saved / ours.TENSORS, "is missing")
    (saved / ours.RECORD).unlink()
    refuse(saved, saved / ours.RECORD, "is missing")


@pytest.mark.parametrize("text", ["", "{", "[1,", "{'a': 1}", "\ufeff{}"])
def test_a_record_that_is_not_json(saved, text):
    (saved / ours.RECORD).write_text(text)
    refuse(saved, saved / ours.RECORD, "is not JSON")


def test_a_record_that_is_not_utf8(saved):
    (saved / ours.RECORD).write_bytes(b'{"schema": "\xff"}')
    refuse(saved, saved / ours.RECORD, "is not JSON")


@pytest.mark.parametrize("text", ["[]", "3", "null"])
def test_a_record_that_is_no_object(saved, text):
    (saved / ours.RECORD).write_text(text)
    refuse(saved, saved / ours.RECORD, "expected an object with fields")


@pytest.mark.parametrize("text", ["{}", '{"schema": "sparse-dictionary/2"}'])
def test_a_record_of_another_schema(saved, text):
    (saved / ours.RECORD).write_text(text)
    refuse(saved, saved / ours.RECORD, r"has schema .*, expected 'sparse-dictionary/1'")


@pytest.mark.parametrize("field", ["source", "target", "architecture"])
def test_a_record_without_a_field(saved, field):
    record = json.loads((saved / ours.RECORD).read_text())
    del record[field]
    (saved / ours.RECORD).write_text(json.dumps(record))
    refuse(saved, saved / ours.RECORD, f"has no field '{field}'")


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"source": "mlp.1"}, "no site is called 'mlp.1'"),
        ({"target": "mlp_out"}, "no site is called 'mlp_out'"),
        ({"architecture": "l1"}, "no architecture is called 'l1'"),
        ({"k": None}, "topk needs a k"),
    ],
)
def test_a_record_with_a_wrong_field(saved, fields, match):
    change(saved / ours.RECORD, **fields)
    refuse(saved, saved / ours.RECORD, match)


@pytest.mark.parametrize(
    "fields", [{"source": 3}, {"target": None}, {"k": "5"}, {"k": 5.0}, {"k": [5]}, {"k": True}]
)
def test_a_record_with_a_field_of_the_wrong_type(saved, fields):
    change(saved / ours.RECORD, **fields)
    refuse(saved, saved / ours.RECORD, "expected")


@pytest.mark.parametrize(
    ("tensors", "match"),
    [
        ({"b_enc": torch.zeros(3)}, r"b_enc has shape \(3,\), expected \(20,\)"),
        ({"W_dec": torch.zeros(20, 23)}, r"b_dec has shape \(24,\), expected \(23,\)"),
        ({"W_enc": torch.zeros(20)}, "W_enc has 1 axes, expected 2"),
        ({"W_dec": None}, "needs W_dec, which is not there"),
        ({"b_enc": None, "b_dec": None}, "needs b_dec, b_enc, which is not there"),
        ({"W_gate": torch.zeros(3)}, "has no tensor called W_gate"),
        ({"b_dec": torch.full((24,), torch.nan)}, "b_dec holds numbers that are not finite"),
        ({"threshold": torch.zeros(20)}, "'topk' has no threshold tensor"),
    ],
)
def test_tensors_that_are_no_dictionary(saved, tensors, match):
    change_tensors(saved, **tensors)
    refuse(saved, saved / ours.TENSORS, match)


def test_a_k_above_the_number_of_features(saved):
    change(saved / ours.RECORD, k=21)
    refuse(saved, saved / ours.TENSORS, "k is 21, expected 1 to 20")


@pytest.mark.parametrize("size", [0, 4, 50, 500, -1])
def test_tensors_cut_short(saved, size):
    file = saved / ours.TENSORS
    file.write_bytes(file.read_bytes()[:size])
    refuse(saved, file, "is not a readable safetensors file")


def test_a_suite_that_lists_a_folder_that_is_not_there(suite):
    folder, _ = suite
    with pytest.raises(ValueError, match=r"mlp_out\.7/dictionary\.json is missing"):
        ours.save_suite_index(folder, ["mlp_out.7"])
    change(folder / ours.SUITE, dictionaries=["mlp_out.7"])
    with pytest.raises(ValueError, match=r"mlp_out\.7/dictionary\.json is missing"):
        load_suite(folder)


@pytest.mark.parametrize(
    ("text", "match"),
    [("{", "is not JSON"), ("{}", "has schema None, expected 'dictionary-suite/1'")],
)
def test_a_suite_index_that_is_none(suite, text, match):
    folder, _ = suite
    (folder / ours.SUITE).write_text(text)
    with pytest.raises(ValueError, match=match) as error:
        load_suite(folder)
    assert str(error.value).startswith(str(folder / ours.SUITE))


@pytest.mark.parametrize("names", ["absent", 3, [3], {"a": 1}, "mlp_out.1", ["../elsewhere"]])
def test_a_suite_index_without_a_list_of_names(suite, names):
    folder, (sae, *_) = suite
    ours.save_dictionary(sae, folder.parent / "elsewhere", card=CARD)
    record = {"schema": ours.SUITE_SCHEMA} | ({} if names == "absent" else {"dictionaries": names})
    (folder / ours.SUITE).write_text(json.dumps(record))
    with pytest.raises(ValueError, match="dictionaries") as error:
        load_suite(folder)
    assert str(error.value).startswith(str(folder / ours.SUITE))


@pytest.mark.parametrize("fields", [{"target": "mlp"}, {"schema": None}])
def test_a_damaged_member_of_a_suite_names_its_file(suite, fields):
    folder, _ = suite
    file = folder / "mlp_out.1" / ours.RECORD
    record = json.loads(file.read_text()) | fields
    if fields.get("schema", "") is None:
        record = {"schema": ours.DICTIONARY_SCHEMA}
    file.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="target|site|field") as error:
        load_suite(folder)
    assert str(error.value).startswith(str(file))


@pytest.mark.parametrize("text", ["[" * 100_000, '{"k": ' + "9" * 5000 + "}"])
def test_json_that_is_too_much_names_its_file(saved, text):
    (saved / ours.RECORD).write_text(text)
    refuse(saved, saved / ours.RECORD, "is not JSON")


def mutations(raw, rng):
    """One damaged copy: cut, doubled, bytes changed, or a piece of another kind of file put in."""
    data = bytearray(raw)
    match rng.randrange(4):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            at = rng.randrange(len(data))
            data[at:at] = data[rng.randrange(len(data)) :][:40]
        case 2:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(min(len(data), 400))] = rng.randrange(256)
        case _:
            at = rng.randrange(min(len(data), 400))
            # What a pickle that runs a command on load looks like.
            data[at : at + 20] = b"cposix\nsystem\n(S'touch ran'\ntR."
    return bytes(data)


def damaged_loads(folder, name, n, seed):
    """Outcomes of loading `folder` with its file `name` damaged in `n` random ways."""
    raw, rng = (folder / name).read_bytes(), random.Random(seed)
    outcomes = []
    for _ in range(n):
        (folder / name).write_bytes(mutations(raw, rng))
        try:
            ours.load_dictionary(folder)
            outcomes.append("loaded")
        except ValueError as error:
            outcomes.append("refused" if str(folder / name) in str(error) else str(error))
    return outcomes


@pytest.mark.parametrize("name", [ours.TENSORS, ours.RECORD])
def test_damaged_files_load_or_are_refused_by_name_and_run_nothing(saved, monkeypatch, name):
    monkeypatch.chdir(saved.parent)
    ours.load_dictionary(saved)  # imports what loading imports
    with running_nothing():
        outcomes = damaged_loads(saved, name, 60, seed=1)
    assert not (saved.parent / "ran").exists()
    assert set(outcomes) <= {"loaded", "refused"}
    assert outcomes.count("refused") > 30
