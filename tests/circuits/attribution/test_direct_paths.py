"""Which sites a direct path goes between."""

from circuits.attribution.direct_paths import upstream
from hooked_qwen.sites import Site
from tests.toys import (
    full_suite,
    toy_suite,
)


def test_upstream_sites_reach_back_to_the_last_cut_of_the_stream():
    suite = full_suite()
    names = lambda site: [str(s) for s in upstream(suite.writes, site)]  # noqa: E731
    assert names(Site("mlp_out", 1)) == ["attn_out.1", "resid_post.0"]
    assert names(Site("attn_out", 0)) == ["embed"]
    assert names(Site("resid_post", 2)) == ["mlp_out.2", "attn_out.2", "resid_post.1"]
    assert names(None) == ["resid_post.2"]
    only_mlps = toy_suite("mlp_out.0", "mlp_out.2")
    assert [str(s) for s in upstream(only_mlps.writes, None)] == ["mlp_out.2", "mlp_out.0", "embed"]
