"""A decoder layer of Hugging Face's modules written out by hand: the oracle for our sites."""

import torch


def plain_forward(hf, tokens, edits=None):
    """Logits, and the tensor at every site by name after `edits[name]` was added to it."""
    edits, seen = edits or {}, {}

    def at(name, value):
        seen[name] = value + edits[name] if name in edits else value
        return seen[name]

    n = tokens.shape[1]
    x = at("embed", hf.model.embed_tokens(tokens))
    lowest = torch.finfo(x.dtype).min
    mask = torch.full((n, n), lowest, dtype=x.dtype).triu(1)[None, None]
    rotary = hf.model.rotary_emb(x, torch.arange(n)[None])
    for i, layer in enumerate(hf.model.layers):
        x = at(f"resid_pre.{i}", x)
        normed = layer.input_layernorm(x)
        mixed, _ = layer.self_attn(normed, position_embeddings=rotary, attention_mask=mask)
        x = at(f"resid_mid.{i}", x + at(f"attn_out.{i}", mixed))
        read = at(f"mlp_in.{i}", layer.post_attention_layernorm(x))
        mlp = layer.mlp
        hidden = at(f"mlp_hidden.{i}", mlp.act_fn(mlp.gate_proj(read)) * mlp.up_proj(read))
        x = at(f"resid_post.{i}", x + at(f"mlp_out.{i}", mlp.down_proj(hidden)))
    return hf.lm_head(hf.model.norm(x)), seen
