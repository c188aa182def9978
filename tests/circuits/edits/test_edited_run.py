"""What every kind of edit says of a batch: columns, and the sites read and not written."""

import torch

from circuits.edits.edited_run import columns_of, read_elsewhere
from hooked_qwen.sites import Site
from tests.toys import full_suite, toy_suite


def test_a_transcoder_alone_reads_where_it_does_not_write():
    assert read_elsewhere(full_suite()) == {Site("mlp_in", 1)}
    assert read_elsewhere(toy_suite("mlp_out.1", "resid_post.0")) == set()


def test_each_token_has_its_column_whatever_stands_there():
    expected = torch.arange(5).expand(3, 5)
    assert torch.equal(columns_of(torch.zeros(3, 5, 8)), expected)
    assert torch.equal(columns_of(torch.zeros(3, 5)), expected)
