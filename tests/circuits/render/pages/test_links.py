"""Links of pages: relative, without spaces, escaped."""

import json
import re

import pytest

from circuits.render.pages.circuit.page import page
from circuits.render.pages.links import Links, address
from tests.circuits import synthetic


@pytest.fixture(scope="module")
def sample():
    return synthetic.circuit(60)


def test_addresses_are_relative_and_hold_no_space(tmp_path):
    page = tmp_path / "a run" / "ablations" / "top 5" / "graph.html"
    assert address(page, tmp_path / "a run") == "ablations/top%205/graph.html"
    assert address(tmp_path / "a run" / "graph.html", page.parent) == "../../graph.html"


def test_links_of_a_page_are_escaped(sample):
    html = page(sample, links=Links(suite='x"><script>alert(1)</script>'))
    payload = json.loads(re.search(r'id="data-payload">(.*?)</script>', html)[1])
    assert payload["links"]["suite"] == 'x"><script>alert(1)</script>'
    assert "<script>alert" not in html
