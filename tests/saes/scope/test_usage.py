"""How often features are on and how far."""

import pytest
import torch

from hooked_qwen.forward import run_through
from hooked_qwen.hooks import capture
from hooked_qwen.nodes import Node
from hooked_qwen.stream import is_outlier_in_prompt
from hooked_qwen.tokens import encode_prompt
from saes.evaluation.splice import unpadded
from saes.scope.usage import usage_in
from tests.toys import speaking_toy, toy_suite

TEXTS = ["abc de", "Hello", "aaaa bbb ccc", "x", "what? no!", "ab"]


def test_use_is_counted_over_tokens():
    model = speaking_toy(dtype=torch.float32)
    suite = toy_suite("resid_post.0", "mlp_in.1-mlp_out.1", dtype=torch.float32)
    names, follow = tuple(suite), [Node("resid_post.0", 3), Node("mlp_out.1", 8)]
    usage = usage_in(model, suite, TEXTS, names=names, follow=follow)
    for name in names:
        values, peaks = [], []
        node = next(n for n in follow if n.site == name)
        for text in TEXTS:
            ids = encode_prompt(model.tokenizer, text)
            with capture(model, suite.reads) as seen:
                run_through(model, unpadded(torch.tensor([ids])), 1)
            x = suite.read(name, seen)
            counted = ~is_outlier_in_prompt(x, torch.ones(x.shape[:2], dtype=torch.bool))
            f = suite[name].encode(x).dense()[0] * counted[0, :, None]
            values.append(f[counted[0]])
            size = f[:, node.feature].max(0)
            if size.values > 0:
                peaks.append((ids[int(size.indices)], float(size.values)))
        f = torch.cat(values)
        torch.testing.assert_close(usage.density[name], (f != 0).float().mean(0))
        torch.testing.assert_close(usage.largest[name], f.amax(0))
        tokens, sizes = zip(*sorted(peaks, key=lambda pair: -pair[1]), strict=True)
        assert [peak.token for peak in usage.peaks[node]] == list(tokens)
        assert [peak.activation for peak in usage.peaks[node]] == pytest.approx(sizes)
    with pytest.raises(ValueError, match="there is no text to read"):
        usage_in(model, suite, [], names=names)
