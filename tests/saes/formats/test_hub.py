"""The hub, by way of a stand-in on this machine that speaks the part of its protocol we use."""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from hooked_qwen.sites import Site
from saes.dictionary import DictionarySpec
from saes.formats import ours
from saes.formats.hub import is_hub_name, push_suite
from saes.suite import find, load_suite, pinned
from tests.toys import random_dictionary

COMMIT = "c0ffee" * 6 + "c0ff"
SITES = [Site("resid_post", layer) for layer in range(3)]


class Handler(BaseHTTPRequestHandler):
    """One repository, org/name, whose files lie in `server.folder`."""

    def answer(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        server = self.server
        path = self.path.partition("?")[0]
        server.asked.append((self.command, path))
        if path.startswith("/api/models/org/name"):
            revision = path.removeprefix("/api/models/org/name").removeprefix("/revision/")
            if revision not in ("", "main", "v1", COMMIT):
                return self.answer(b"{}", 404, X_Error_Code="RevisionNotFound")
            files = [p for p in server.folder.rglob("*") if p.is_file()]
            siblings = [{"rfilename": p.relative_to(server.folder).as_posix()} for p in files]
            record = {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            return self.answer(json.dumps(record).encode(), Content_Type="application/json")
        file = server.folder / path.removeprefix(f"/org/name/resolve/{COMMIT}/")
        if path.startswith("/org/name/resolve/") and file.is_file():
            body = file.read_bytes()
            etag = hashlib.sha256(body).hexdigest()
            return self.answer(body, ETag=f'"{etag}"', X_Repo_Commit=COMMIT)
        return self.answer(b"{}", 404, X_Error_Code="RepoNotFound")

    def do_POST(self) -> None:
        server = self.server
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        server.asked.append((self.command, path))
        if server.refuses:
            return self.answer(b'{"error": "you may not"}', 403)
        if path == "/api/repos/create":
            answer = {"url": f"{constants.ENDPOINT}/org/name", "name": "org/name"}
        elif path.endswith("/preupload/main"):
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]
            answer = {"files": modes}
        elif path.endswith("/commit/main"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    server.pushed[line["value"]["path"]] = content
            url = f"{constants.ENDPOINT}/org/name/commit/{COMMIT}"
            answer = {"success": True, "commitUrl": url, "commitOid": COMMIT}
        else:
            answer = {"errors": [], "warnings": []}
        return self.answer(json.dumps(answer).encode(), Content_Type="application/json")

    def log_message(self, *_: object) -> None:
        pass


def save(folder: Path) -> Path:
    for site in SITES:
        spec = DictionarySpec(source=site, target=site, k=5)
        made = random_dictionary(spec, seed=site.layer, dtype=torch.float32)
        ours.save_dictionary(made, folder / spec.name, card=ours.Card(model={"name": "toy"}))
    ours.save_suite_index(folder, [str(site) for site in SITES])
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.folder, server.asked, server.pushed = save(tmp_path / "there"), [], {}
    server.refuses = False
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    monkeypatch.chdir(tmp_path)
    yield server
    server.shutdown()
    server.server_close()


def fetched(hub):
    return {p.partition(COMMIT + "/")[2] for _, p in hub.asked if "/resolve/" in p}


@pytest.mark.parametrize("source", ["hf:org/name", "org/name", "org/name@v1", "hf:org/name@v1"])
def test_a_suite_is_read_from_the_hub_file_by_file(hub, source):
    suite = load_suite(source)
    assert list(suite) == [str(site) for site in SITES]
    assert fetched(hub) == {"suite.json", *(f"{site}/dictionary.json" for site in SITES)}
    here = load_suite(hub.folder)
    assert torch.equal(suite[SITES[1]].W_enc, here[SITES[1]].W_enc)
    weights = {file for file in fetched(hub) if file.endswith(".safetensors")}
    assert weights == {"resid_post.1/dictionary.safetensors"}
    assert suite.describe() == here.describe()
    assert suite.summary() == f"3 dictionaries (ours) at hf:org/name@{COMMIT}: resid_post 0-2"


def test_a_folder_of_a_repository(hub):
    suite = load_suite("hf:org/name/resid_post.2")
    assert list(suite) == ["resid_post.2"]
    assert suite.describe()["resid_post.2"]["folder"] == "resid_post.2"
    assert pinned("hf:org/name/resid_post.2") == f"hf:org/name/resid_post.2@{COMMIT}"
    assert list(load_suite(pinned("hf:org/name/resid_post.2"))) == ["resid_post.2"]


def test_a_folder_here_comes_before_a_name_on_the_hub(hub, tmp_path):
    save(tmp_path / "org/name")
    assert load_suite("org/name").summary().startswith(f"3 dictionaries (ours) at {tmp_path}")
    assert not hub.asked
    load_suite("hf:org/name")
    assert hub.asked


def test_what_was_downloaded_is_there_offline(hub, monkeypatch):
    online = load_suite("hf:org/name")
    expected = online[SITES[0]].W_dec
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.asked.clear()
    offline = load_suite("hf:org/name")
    assert torch.equal(offline[SITES[0]].W_dec, expected)
    assert not hub.asked
    with pytest.raises(ValueError, match=r"cannot fetch resid_post\.1/dictionary\.safetensors of"):
        offline[SITES[1]]
    assert list(load_suite(f"hf:org/name@{COMMIT}")) == [str(site) for site in SITES]
    with pytest.raises(ValueError, match=r"cannot list org/name .* wanted its suite\.json, cfg\."):
        load_suite("hf:org/name@v1")


def test_offline_says_in_one_line_what_was_wanted(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match="offline mode .* go online once") as error:
        load_suite("org/name")
    assert "\n" not in str(error.value)


def test_a_hub_that_cannot_be_reached(hub, monkeypatch):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(ValueError, match="cannot list org/name on the hub"):
        load_suite("hf:org/name")


@pytest.mark.parametrize("name", ["hf:org/other", "hf:org/name@v9"])
def test_what_the_hub_has_not(hub, name):
    with pytest.raises(ValueError, match="the hub gives no org/.*; check the name, or log in"):
        load_suite(name)


def test_a_repository_without_dictionaries(hub):
    (hub.folder / "suite.json").unlink()
    with pytest.raises(ValueError, match=f"hf:org/name@{COMMIT} holds no dictionaries"):
        load_suite("hf:org/name")


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:org/na me", "hf:org/name@", "hf:a//b"])
def test_names_that_are_none(hub, name):
    with pytest.raises(ValueError, match="no name on the hub|no such folder"):
        find(name)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("org/name", True),
        ("org/name@main", True),
        ("hf:org/name/folder@main", True),
        ("org/name/folder", False),
        ("./name", False),
        ("../name", False),
        ("/org/name", False),
        ("~/name", False),
        ("name", False),
        ("", False),
    ],
)
def test_what_could_be_a_name_on_the_hub(source, expected):
    assert is_hub_name(source) == expected


def test_a_suite_is_pushed_with_its_card_and_comes_back(hub, tmp_path):
    folder = save(tmp_path / "mine")
    (folder / ".partial-1-x").write_text("left by a killed process")
    (folder / "mlp_out.0").mkdir()
    (folder / "mlp_out.0/.hidden").write_text("no")
    url = push_suite(folder, "org/name", message="Three layers")
    assert url.endswith(f"/org/name/commit/{COMMIT}")
    expected = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.glob("*/d*")}
    expected |= {name: (folder / name).read_bytes() for name in ("suite.json", "README.md")}
    assert hub.pushed == expected
    assert ("POST", "/api/repos/create") in hub.asked


def test_only_a_suite_is_pushed(hub, tmp_path):
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match="holds no dictionaries"):
        push_suite(tmp_path / "other", "org/name")
    assert not hub.asked


def test_a_push_that_is_refused_says_why(hub, tmp_path):
    hub.refuses = True
    with pytest.raises(ValueError, match="cannot push .*mine to org/name: .*403"):
        push_suite(save(tmp_path / "mine"), "org/name")
    assert not hub.pushed
