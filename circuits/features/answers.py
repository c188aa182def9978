"""Language models that are asked: a prompt goes in, a text comes out.

    endpoint(url, name)     a server that speaks OpenAI's chat completions
    local(model)            a model on this machine, its likeliest answer

Any other function from text to text does as well.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from http.client import HTTPException
from itertools import count
from typing import Any, cast
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from transformer_lens.model_bridge import TransformerBridge

from circuits.edits.continuations import text_ends
from hooked_qwen.placement import device_of
from hooked_qwen.tokens import encode, encode_request, has_chat_template

Answer = Callable[[str], str]
"What a model answers to a prompt."
KEY = "OPENAI_API_KEY"
"The environment variable with an endpoint's key; without it none is sent."
TRIES, WAIT = 4, 2.0
"How often a busy server is asked, and for how many seconds to wait after the first time."
BUSY = (408, 429, 500, 502, 503, 504)
TIMEOUT = 120.0


def endpoint(
    url: str,
    name: str,
    *,
    key: str = KEY,
    tokens: int = 100,
    temperature: float = 0.0,
    seed: int = 0,
    wait: float = WAIT,
    timeout: float = TIMEOUT,
) -> Answer:
    """What the model `name` behind `URL/chat/completions` answers.

        endpoint("http://localhost:8000/v1", "Qwen/Qwen3-8B")

    At a temperature above 0 the first answer is drawn with `seed` and every other with one more, so
    that whoever asks the same again gets another text; not every server heeds a seed.
    The key stands in the environment variable `key`. A busy server is asked again, after `wait`
    seconds at first; the answer raises `ValueError` in one line where none comes.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"the endpoint {url!r} is no address: write http://HOST:PORT/v1 or https")
    if temperature < 0:
        raise ValueError(f"temperature is {temperature}: expected 0 or more")
    address, seeds = f"{url.rstrip('/')}/chat/completions", count(seed)

    def answer(prompt: str) -> str:
        body: dict[str, Any] = {
            "model": name,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": temperature,
            "max_tokens": tokens,
        }
        if temperature:
            body["seed"] = next(seeds)
        headers = {"Content-Type": "application/json"}
        if secret := os.environ.get(key):
            headers["Authorization"] = f"Bearer {secret}"
        request = Request(address, json.dumps(body).encode(), headers)
        return _content(_asked(request, address, wait, timeout), address)

    answer.__name__ = name
    return answer


def _asked(request: Request, address: str, wait: float, timeout: float) -> bytes:
    for attempt in range(TRIES):
        try:
            with urlopen(request, timeout=timeout) as reply:
                return reply.read()
        except HTTPError as error:
            said = error.read(500).decode("utf-8", "replace")
            problem = f"{address} answered {error.code}: {said}"
            again = error.code in BUSY
        except (URLError, HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            problem, again = f"{address} cannot be reached ({reason})", True
        if not again or attempt == TRIES - 1:
            raise ValueError(problem) from None
        time.sleep(wait * 2**attempt)
    raise AssertionError("a last try raises")


def _content(reply: bytes, address: str) -> str:
    """The text of the first choice."""
    try:
        found = json.loads(reply)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError):
        found = None
    if not isinstance(found, str):
        raise ValueError(
            f"{address} answered {reply[:200]!r}: expected an object with choices, each with a "
            "message and its content, as OpenAI's chat completions have"
        )
    return found


def local(model: TransformerBridge, *, tokens: int = 100, stop: Sequence[str] = ()) -> Answer:
    """What a model on this machine answers: its likeliest token each time.

    The prompt goes through the tokenizer's chat template where it has one. An answer ends with the
    model's end of text, behind one of `stop`, or after `tokens`. What a prompt has in common with
    the last one is not read again.
    """
    return _Local(model, tokens, tuple(stop))


class _Local:
    """Keeps the keys and values of the last prompt."""

    def __init__(self, model: TransformerBridge, tokens: int, stop: tuple[str, ...]) -> None:
        self._inner, self._tokenizer = cast(Any, model.original_model), model.tokenizer
        self._device, self._tokens, self._stop = device_of(model), tokens, stop
        self._ends = set(text_ends(model))
        self._read: list[int] = []
        self._cache: Any = None

    @torch.no_grad()
    def __call__(self, prompt: str) -> str:
        ids = self._ids(prompt)
        new = ids[self._go_back(ids) :]
        written: list[int] = []
        for _ in range(self._tokens):
            token = self._next(new)
            if token in self._ends:
                break
            written.append(token)
            new = [token]
            said = self._tokenizer.decode(written).lstrip()
            if any(mark in said for mark in self._stop):
                break
        return self._tokenizer.decode(written)

    def _ids(self, prompt: str) -> list[int]:
        if not has_chat_template(self._tokenizer):
            return encode(self._tokenizer, prompt)
        return encode_request(self._tokenizer, prompt)

    def _go_back(self, ids: Sequence[int]) -> int:
        """How many of the tokens are read already; the cache holds these and no others."""
        pairs = zip(ids, self._read, strict=False)
        same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(self._read)))
        # The last token is read anew: its logits are what comes next.
        same = min(same, len(ids) - 1)
        if same == 0 or not _can_go_back(self._cache):
            self._cache, self._read = None, []
            return 0
        self._cache.crop(same - len(self._read))
        self._read = self._read[:same]
        return same

    def _next(self, new: Sequence[int]) -> int:
        """The likeliest token after all that was read and `new`."""
        tokens = torch.tensor([list(new)], device=self._device)
        seen = self._inner(tokens, past_key_values=self._cache, use_cache=True, logits_to_keep=1)
        self._cache = seen.past_key_values
        self._read += new
        return int(seen.logits[0, -1].argmax())


def _can_go_back(cache: Any) -> bool:
    """Whether later tokens can be taken out: not where a layer keeps a state instead of tokens."""
    from transformers.cache_utils import DynamicLayer

    layers = getattr(cache, "layers", None)
    return bool(layers) and all(type(layer) is DynamicLayer for layer in layers)
