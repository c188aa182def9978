"""A loaded model is Hugging Face's model, and what cannot be loaded says why in one line."""

import shutil

import huggingface_hub
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Qwen2VLConfig,
    Qwen3_5Config,
    Qwen3_5ForCausalLM,
    Qwen3_5ForConditionalGeneration,
    Qwen3_5MoeConfig,
    Qwen3_5MoeForCausalLM,
    Qwen3_5MoeForConditionalGeneration,
    Qwen3_5MoeTextConfig,
    Qwen3_5TextConfig,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

from hooked_qwen import bundled
from hooked_qwen.hook_points import has_neurons, hook_point
from hooked_qwen.hooks import capture, intervene
from hooked_qwen.load import (
    ARCHITECTURES,
    BUNDLED,
    hook,
    load,
    load_config,
    load_tokenizer,
)
from hooked_qwen.notices import Notice
from hooked_qwen.sites import KINDS, Site
from tests.toys import FAMILIES, SIZES, VOCABULARY, toy_hf, toy_tokenizer

TOKENS = torch.randint(1, VOCABULARY, (2, 7), generator=torch.Generator().manual_seed(0))
TEXT = "cab ab, Hello!\n"

MOE = {"head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
DELTA_NET = {f"linear_num_{part}_heads": 2 for part in ("key", "value")} | {
    f"linear_{part}_head_dim": 8 for part in ("key", "value")
}
EXPERTS = {
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
}
HYBRID = SIZES | DELTA_NET | {"head_dim": 8, "num_hidden_layers": 4}


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


def save_toy(family, folder):
    model = toy_hf(family, torch.float32)
    model.save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return model


def refuse(source, match):
    """`load` raises ValueError, one line long."""
    with pytest.raises(ValueError, match=match) as error:
        load(source)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_saved_model_gives_hugging_faces_logits_bit_for_bit(family, dtype, tmp_path):
    save_toy(family, tmp_path)
    reference = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=dtype, attn_implementation="eager"
    )
    model = load(tmp_path, dtype=dtype)
    assert torch.equal(model(TOKENS), reference(TOKENS).logits)
    assert model.cfg.dtype == dtype
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())


def toy_moe():
    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(Qwen3MoeConfig(**SIZES, **MOE)).eval()


def toy_hybrid():
    torch.manual_seed(0)
    return Qwen3_5ForCausalLM(Qwen3_5TextConfig(**HYBRID)).eval()


def toy_hybrid_moe():
    torch.manual_seed(0)
    return Qwen3_5MoeForCausalLM(Qwen3_5MoeTextConfig(**HYBRID, **EXPERTS)).eval()


@pytest.mark.parametrize("make", [toy_moe, toy_hybrid, toy_hybrid_moe])
def test_a_model_in_memory_gives_hugging_faces_logits_bit_for_bit(make):
    reference = make()
    reference.set_attn_implementation("eager")
    assert type(reference).__name__ in ARCHITECTURES
    assert torch.equal(hook(make(), name="toy")(TOKENS), reference(TOKENS).logits)


@pytest.mark.parametrize(
    ("config", "model", "text"),
    [
        (Qwen3_5Config, Qwen3_5ForConditionalGeneration, HYBRID),
        (Qwen3_5MoeConfig, Qwen3_5MoeForConditionalGeneration, HYBRID | EXPERTS),
    ],
)
def test_the_language_model_of_a_published_checkpoint_with_images(config, model, text, tmp_path):
    torch.manual_seed(0)
    sight = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2}
    sight |= {"out_hidden_size": SIZES["hidden_size"], "num_position_embeddings": 16}
    whole = model(config(text_config=text, vision_config=sight)).eval()
    whole.set_attn_implementation("eager")
    whole.save_pretrained(tmp_path)
    toy_tokenizer().save_pretrained(tmp_path)
    assert whole.config.architectures == [model.__name__]
    found = load(tmp_path)
    assert torch.equal(found(TOKENS), whole(input_ids=TOKENS).logits)
    assert found.cfg.n_layers == 4


@pytest.mark.parametrize("make", [toy_moe, toy_hybrid, toy_hybrid_moe])
def test_every_site_of_every_family_adds_up(make):
    """resid_post = resid_pre + attn_out + mlp_out, whatever mixes the tokens."""
    model = hook(make(), name="toy")
    n_layers = len(model.blocks)
    kinds = [kind for kind in KINDS[1:] if kind != "mlp_hidden" or has_neurons(model, [0])]
    sites = {(kind, i): Site(kind, i) for kind in kinds for i in range(n_layers)}
    with capture(model, sites.values()) as seen:
        model(TOKENS)
    value = {key: seen[site] for key, site in sites.items()}
    for i in range(n_layers):
        middle = value["resid_pre", i] + value["attn_out", i]
        torch.testing.assert_close(value["resid_mid", i], middle)
        torch.testing.assert_close(value["resid_post", i], middle + value["mlp_out", i])


def test_a_mixture_of_experts_has_no_neurons_to_name():
    model = hook(toy_moe(), name="toy")
    with pytest.raises(ValueError, match=r"the MLP of layer 1 is a mixture: it has no mlp_hidden"):
        hook_point(model, Site("mlp_hidden", 1))


def test_the_token_mixer_of_a_hybrid_layer_is_its_delta_net():
    model = hook(toy_hybrid(), name="toy")
    assert {"linear_attn" in block.submodules for block in model.blocks} == {True, False}
    clean = model(TOKENS)
    for layer in range(4):
        mixed, start = Site("attn_out", layer), Site("resid_pre", layer)
        with (
            capture(model, [start, Site("resid_mid", layer)]) as seen,
            intervene(model, {mixed: torch.zeros_like}),
        ):
            edited = model(TOKENS)
        assert torch.equal(seen[Site("resid_mid", layer)], seen[start])
        assert not torch.equal(edited, clean)


def test_the_tokenizer_comes_with_the_model(tmp_path):
    save_toy("qwen3", tmp_path)
    expected = toy_tokenizer()(TEXT)["input_ids"]
    assert load(tmp_path).tokenizer(TEXT)["input_ids"] == expected
    assert load_tokenizer(tmp_path)(TEXT)["input_ids"] == expected
    assert load_tokenizer(str(tmp_path)).eos_token_id == 0


def test_the_bundled_model_is_hugging_faces():
    model = load(BUNDLED)
    reference = AutoModelForCausalLM.from_pretrained(
        bundled.PATH, dtype=torch.float32, attn_implementation="eager"
    )
    text = "The keys of the cabinet are in Oslo, 12 ñ é.\n\n  x"
    tokens = model.tokenizer(text, return_tensors="pt")["input_ids"]
    assert torch.equal(model(tokens), reference(tokens).logits)
    assert model.cfg.model_name == BUNDLED
    own = Tokenizer.from_file(str(bundled.PATH / "tokenizer.json"))
    assert tokens[0].tolist() == own.encode(text).ids


@pytest.mark.parametrize("source", ["/nowhere/model", "./nowhere", "~/nowhere", "x.gguf", "a/b/c"])
def test_a_path_that_is_not_there(source):
    refuse(source, f"there is no model at {source}: no such file or folder")


def test_a_folder_without_a_model(tmp_path):
    refuse(tmp_path, "holds no config.json: expected a Hugging Face model's folder")


def test_a_file_that_is_no_gguf(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    refuse(tmp_path / "model.safetensors", r"is a file: expected a \.gguf file or a model's folder")


def test_a_loaded_model_has_the_tokenizer_as_it_is(tmp_path):
    """TransformerLens' copy of one that knows a beginning-of-sequence token puts it everywhere."""
    save_toy("qwen2", tmp_path)
    tokenizer = toy_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<|endoftext|>"})
    tokenizer.save_pretrained(tmp_path)
    model = load(tmp_path)
    ids = tokenizer("cab")["input_ids"]
    assert (
        model.tokenizer("cab")["input_ids"] == load_tokenizer(tmp_path)("cab")["input_ids"] == ids
    )
    assert model.to_tokens("cab").tolist() == [ids]


def test_an_architecture_that_is_not_qwen_lists_those_that_are(tmp_path):
    LlamaConfig(**SIZES, architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    message = refuse(tmp_path, "is a LlamaForCausalLM: expected one of")
    Qwen2VLConfig(architectures=["Qwen2VLForConditionalGeneration"]).save_pretrained(tmp_path)
    refuse(tmp_path, "is a Qwen2VLForConditionalGeneration: expected one of")
    assert all(name in message for name in ARCHITECTURES)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ("{", "not a valid JSON"),
        ("[]", "Unrecognized model"),
        ('{"model_type": "nope"}', "does not recognize this architecture"),
        ('{"model_type": "qwen2"}', "no file named model.safetensors"),
        ('{"model_type": "qwen2", "hidden_size": "x"}', "hidden_size"),
    ],
)
def test_a_config_that_is_none(tmp_path, config, match):
    (tmp_path / "config.json").write_text(config)
    refuse(tmp_path, match)


@pytest.mark.parametrize("name", ["Qwen/Qwen2.5-0.5B-nowhere", "nowhere"])
def test_a_hub_name_while_offline_says_so(monkeypatch, name):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refuse(name, f"cannot load {name} from '{name}' on the hub: .*HF_HUB_OFFLINE is set")


def on_the_hub(folder, cache, name, revision, commit):
    """Files of a model as the hub's cache keeps them, under one revision."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(folder, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    (repository / "refs" / revision).write_text(commit)


def test_a_revision_of_a_model_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    folder, references = tmp_path / "model", {}
    for number, revision in enumerate(("main", "v1")):
        model = save_toy("qwen2", folder)
        model.lm_head.weight += number
        model.save_pretrained(folder)
        references[revision] = model
        on_the_hub(folder, tmp_path / "cache", "org/toy", revision, str(number) * 40)
    for source, revision in (("org/toy", "main"), ("org/toy@v1", "v1")):
        assert torch.equal(load(source)(TOKENS), references[revision](TOKENS).logits)
        assert load_tokenizer(source)(TEXT)["input_ids"] == toy_tokenizer()(TEXT)["input_ids"]
    refuse("org/toy@v2", "cannot load org/toy@v2 from 'org/toy' on the hub")


def test_a_name_that_no_hub_could_have():
    refuse("a b", "cannot load a b from 'a b' on the hub")


def test_a_folder_without_weights(tmp_path):
    save_toy("qwen2", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    refuse(tmp_path, f"cannot load .* from the folder {tmp_path}: .*model.safetensors")


def test_weights_cut_short(tmp_path):
    save_toy("qwen2", tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    refuse(tmp_path, "cannot load")


def test_a_tensor_that_is_missing(tmp_path):
    save_toy("qwen2", tmp_path)
    file, name = tmp_path / "model.safetensors", "model.layers.1.mlp.up_proj.weight"
    weights = load_file(file)
    del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    refuse(tmp_path, name)


def test_weights_that_the_language_model_does_not_use_are_said(tmp_path):
    save_toy("qwen2", tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file) | {"score.weight": torch.zeros(2, 24)}
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.warns(Notice, match=r"that its language model does not use: score\.weight"):
        load(tmp_path)


def test_a_model_without_a_tokenizer_says_so(tmp_path):
    toy_hf("qwen2", torch.float32).save_pretrained(tmp_path)
    refuse(tmp_path, "holds no tokenizer, or one without a vocabulary: put the tokenizer.json")
    with pytest.raises(ValueError, match="holds no tokenizer"):
        load_tokenizer(tmp_path)


def test_a_tokenizer_that_is_damaged(tmp_path):
    save_toy("qwen2", tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    refuse(tmp_path, "cannot load")


def test_a_configuration_of_another_class_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(ValueError, match="is a GPT2"):
        load_config(tmp_path)
