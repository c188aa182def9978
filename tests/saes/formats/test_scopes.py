"""Folders of Qwen-Scope and Gemma Scope, whose names say what files do not."""

import pytest

from tests.saes import published
from tests.saes.formats.test_published import refuse


def test_a_qwen_scope_folder_must_say_its_k(tmp_path):
    folder, _ = published.write("qwen-scope", tmp_path)
    renamed = folder.rename(tmp_path / "mine")
    refuse(renamed, renamed / "layer1.sae.pt", "how many features it keeps")


@pytest.mark.parametrize(
    ("name", "match"),
    [("mine", "names no kind"), ("gemma-scope-2b-pt-att", "kind 'att', which reads no site")],
)
def test_a_gemma_scope_folder_must_say_its_site(tmp_path, name, match):
    folder, _ = published.write("gemma-scope", tmp_path)
    renamed = folder.rename(tmp_path / name)
    refuse(renamed, renamed, match)
