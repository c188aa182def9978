"""What every page is made with: modules in one element, records in a script, templates."""

import base64
import gzip
import json
import re
import shutil

import numpy as np
import pytest

from circuits.render.pages.assets import HERE as RENDER
from circuits.render.pages.assets import compress, embed, inlined, script, style, templates, to_json


def test_a_module_keeps_what_it_does_not_export():
    text = script(["circuit/scene.mjs"])
    assert re.search(r"^const { makeBox, fold, [\w, ]+ } = \(", text, re.MULTILINE)
    assert "export " not in text


@pytest.fixture
def modules(tmp_path):
    """A folder with three of our modules, and room for an odd one."""
    for name in ("dom.mjs", "circuit/scene.mjs", "feature/main.mjs"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(RENDER / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["dom.mjs", "feature/main.mjs"], "sheet from feature/card.mjs, which is not on this"),
        (["odd.mjs", "circuit/scene.mjs"], "nothing from circuit/scene.mjs, which does not"),
    ],
)
def test_an_import_of_what_is_not_there_is_refused(modules, names, says):
    odd = 'import { fold, nothing } from "./circuit/scene.mjs";\n'
    (modules / "odd.mjs").write_text(odd, encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        script(names, modules)


def test_one_name_for_two_things_in_a_shared_scope_is_refused(modules):
    odd = 'import { el } from "./dom.mjs";\nasync function unpack(id) {}\n'
    (modules / "odd.mjs").write_text(odd, encoding="utf-8")
    match = "dom.mjs and odd.mjs, which share a scope, both have unpack"
    with pytest.raises(ValueError, match=match):
        script(["dom.mjs", "odd.mjs"], modules)


def test_a_value_that_is_neither_number_nor_text_is_refused():
    with pytest.raises(TypeError, match="got object"):
        compress({"x": object()})


def test_json_cannot_end_its_script_element():
    assert str(embed(["</script>", "\u2028"])) == r'["\u003c/script\u003e","\u2028"]'


def test_a_template_escapes_what_it_is_given_and_embeds_records():
    page = templates().from_string("<p>{{ text }}</p><script>{{ record | embed }}</script>")
    found = page.render(text="<b>&", record={"x": "</script>"})
    assert found == r'<p>&lt;b&gt;&amp;</p><script>{"x":"\u003c/script\u003e"}</script>'


def test_what_is_packed_is_the_same_each_time_and_comes_back():
    record = {"x": [1, 2.5], "of": np.float32(0.5), "many": np.arange(3)}
    assert compress(record) == compress(record)
    content = gzip.decompress(base64.b64decode(compress(record)))
    assert json.loads(content) == {"x": [1, 2.5], "of": 0.5, "many": [0, 1, 2]}


def test_code_that_would_end_its_own_element_is_caught():
    with pytest.raises(AssertionError, match="would end its own element"):
        inlined("x = '</SCRIPT>'", end="</script")
    assert "</style" not in style("page.css")


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json({"x": float("inf")})
