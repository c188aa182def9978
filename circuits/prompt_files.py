"""Prompt files: what a line may hold, and the prompts read from it or written to it.

A file is JSON Lines, one JSON list of objects, CSV or Parquet; `docs/circuits.md` lists the
fields. The layouts of published sets are read as they are: `clean_prefix/patch_prefix/
clean_answer/patch_answer` (Marks et al.) and CSV with `clean,corrupted` (Hanna et al.).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hooked_qwen.files import write_atomically
from hooked_qwen.records import read_records

DIGITS = "0123456789"
Chat = tuple[tuple[str, str], ...]
"Messages of a conversation, each a role and its content."


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One line of a prompt set. For `patch`, when there is one, `wrong` is the right answer.

    No `answer` asks for the model's own, no `wrong` stands for the whole vocabulary.

        keys, key = "The keys near the cabinet", "The key near the cabinet"
        circuits.Prompt(clean=keys, patch=key, answer=(" are",), wrong=(" is",))
    """

    clean: str
    patch: str | None
    answer: tuple[str, ...]
    wrong: tuple[str, ...]
    case: str = ""
    where: str = ""
    "file and line, for messages"
    chat: tuple[Chat, Chat | None] | None = None
    "clean and patch as messages, where these are given; then `clean` and `patch` only show them"
    unfit: str = ""
    "why the prompt cannot be used at all"


# What the published layouts call our fields.
NAMES = {
    "clean": ("clean", "clean_prefix"),
    "patch": ("patch", "patch_prefix", "corrupted"),
    "answer": ("answer", "clean_answer"),
    "wrong": ("wrong", "patch_answer"),
}


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt file; raises `ValueError` naming file, line and what is wrong with it.

    circuits.open("bundled", "bundled", circuits.read_prompts("prompts.jsonl")[:10])
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no prompt file at {path}")
    prompts = [prompt_of(record, where) for where, record in read_records(path)]
    if not prompts:
        raise ValueError(f"{path} holds no prompts")
    return prompts


def prompt_lines(prompts: Sequence[Prompt]) -> str:
    """A prompt set as JSON Lines."""
    return "".join(
        json.dumps(
            {
                **dict(zip(("clean", "patch"), _sides(p), strict=True)),
                "answer": p.answer[0] if len(p.answer) == 1 else list(p.answer) or None,
                "wrong": p.wrong[0] if len(p.wrong) == 1 else list(p.wrong) or None,
                "case": p.case,
            },
            ensure_ascii=False,
        )
        + "\n"
        for p in prompts
    )


def write_prompts(prompts: Sequence[Prompt], path: Path) -> None:
    """Write a prompt set as JSON Lines, whole or not at all."""
    content = prompt_lines(prompts).encode()
    write_atomically(path, lambda partial: partial.write_bytes(content))


def _sides(prompt: Prompt) -> tuple[Any, Any]:
    """Clean and patch as a file holds them."""
    if prompt.chat is None:
        return prompt.clean, prompt.patch
    clean, patch = (
        chat and [{"role": role, "content": content} for role, content in chat]
        for chat in prompt.chat
    )
    return clean, patch


def prompt_of(record: Mapping[str, Any], where: str) -> Prompt:
    """The prompt that one line of a file holds; raises `ValueError`, beginning with `where`."""
    found = {
        field: next((record[n] for n in names if record.get(n) is not None), None)
        for field, names in NAMES.items()
    }
    label, unfit = str(record.get("label") or ""), ""
    is_year = "corrupted" in record and label.isascii() and label.isdigit()
    if found["answer"] is None and is_year:
        found["answer"], found["wrong"], unfit = _later_digits(label)
    for field, names in NAMES.items():
        absent = found[field] is None and not unfit and not any(n in record for n in names)
        if field != "patch" and (absent or (field == "clean" and found[field] is None)):
            raise ValueError(
                f"{where}: no field {' or '.join(map(repr, names))}; "
                f"the line has {', '.join(map(repr, record)) or 'no field'}"
            )
        if found[field] in ("", []):
            null = " (null where there is none)" if field != "clean" else ""
            raise ValueError(f"{where}: {field!r} is empty{null}")
    answer, wrong = (_texts(found[f], f, where) for f in ("answer", "wrong"))
    if wrong and not answer:
        raise ValueError(f"{where}: a wrong answer needs a right one")
    if both := sorted(set(answer) & set(wrong)):
        raise ValueError(f"{where}: {', '.join(map(repr, both))} is both right and wrong")
    prompt = Prompt(
        clean="",
        patch=None,
        answer=answer,
        wrong=wrong,
        case=str(record.get("case") or ""),
        where=where,
        unfit=unfit,
    )
    return _with_sides(prompt, found["clean"], found["patch"])


def _with_sides(prompt: Prompt, clean: Any, patch: Any) -> Prompt:
    """The prompt with its two sides, both texts or both messages."""
    if isinstance(clean, list) and (patch is None or isinstance(patch, list)):
        chats = tuple(x and _chat(x, prompt.where) for x in (clean, patch))
        shown = [chat and "\n".join(f"{r}: {c}" for r, c in chat) for chat in chats]
        return replace(prompt, clean=shown[0], patch=shown[1], chat=chats)
    if not isinstance(clean, str) or not (patch is None or isinstance(patch, str)):
        raise ValueError(
            f"{prompt.where}: clean and patch must be text, or both a list of chat messages"
        )
    return replace(prompt, clean=clean, patch=patch)


def _chat(messages: list[Any], where: str) -> Chat:
    for message in messages:
        fields = message if isinstance(message, dict) else {}
        texts = [fields.get(name) for name in ("role", "content")]
        if len(fields) != 2 or not all(isinstance(text, str) for text in texts):
            raise ValueError(
                f'{where}: a chat message is {{"role": ..., "content": ...}}, both texts; '
                f"got {message!r}"
            )
    return tuple((message["role"], message["content"]) for message in messages)


def _texts(value: Any, field: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{where}: {field} must be a text or a list of texts, got {value!r}")
    return tuple(dict.fromkeys(values))


def _later_digits(label: str) -> tuple[list[str] | None, list[str] | None, str]:
    """Answers of the greater-than task, for tokenizers that split numbers into digits.

    The prompt ends within a year, before its tens digit; `label` is the two digits of the year
    that must be exceeded. Any higher digit is right, any lower one wrong. Last comes why a line
    cannot be used, if it cannot.
    """
    tens = label.zfill(2)[0]
    right, wrong = [d for d in DIGITS if d > tens], [d for d in DIGITS if d < tens]
    if right and wrong:
        return right, wrong, ""
    return None, None, "no single digit decides whether a year is later than the label's"
