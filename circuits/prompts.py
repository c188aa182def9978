"""Prompt sets: pairs of prompts that differ in one thing, with the answer to each.

A line of a JSON Lines file is `{"clean": ..., "patch": ..., "answer": ..., "wrong": ...}` with an
optional `case`; `answer` and `wrong` may be lists. A null `patch` leaves the reference to zero or
a mean, a null `answer` asks for the model's own, a null `wrong` for the whole vocabulary. The
layouts of published sets are read as they
are: `clean_prefix/patch_prefix/clean_answer/patch_answer` (Marks et al.) and CSV with
`clean,corrupted` (Hanna et al.).

Positions are counted from the left over tokens; prompts of different lengths are padded on the
left, so the last token of every prompt is in the last column.
"""

import csv
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from hooked_qwen.files import write_atomically
from hooked_qwen.tokens import (
    Batch,
    Bos,
    encode,
    encode_prompt,
    pad_left,
    start_of_text,
    token_strings,
)

Positions = Literal["keep", "end", "sum"]
"Kept apart, for prompts of one length or of several whose last tokens share a column; or summed."
DIGITS = "0123456789"


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """One line of a prompt set. For `patch`, when there is one, `wrong` is the right answer.

    No `answer` asks for the model's own, no `wrong` stands for the whole vocabulary.
    """

    clean: str
    patch: str | None
    answer: tuple[str, ...]
    wrong: tuple[str, ...]
    case: str = ""
    where: str = ""
    "file and line, for messages"


@dataclass(frozen=True)
class EncodedPrompts:
    """A checked prompt set in the tokens of one model."""

    prompts: tuple[Prompt, ...]
    clean: Batch
    patch: Batch | None
    answer_ids: tuple[tuple[int, ...], ...]
    wrong_ids: tuple[tuple[int, ...], ...]
    columns: tuple[str, ...] | None
    "the token at each position, where these are kept apart"
    answer_weights: tuple[tuple[float, ...], ...] | None = None
    "what each answer counts for; None: the same"
    begins_with: tuple[str, ...] = ()
    "tokens put before every prompt, as the tokenizer does; the first positions are theirs"

    def __len__(self) -> int:
        return len(self.prompts)

    def tokens_hash(self) -> str:
        """16 hex digits that differ where a token of any prompt does: another tokenizer's do."""
        batches = [self.clean, *([] if self.patch is None else [self.patch])]
        rows = [r[m].tolist() for b in batches for r, m in zip(b.tokens, b.mask, strict=True)]
        return sha256(json.dumps(rows).encode()).hexdigest()[:16]

    def n_positions(self, positions: Positions) -> int:
        """Positions told apart: 1 where they are summed."""
        return 1 if positions == "sum" else self.clean.tokens.shape[1]


def read_prompts(path: Path) -> list[Prompt]:
    """Read a prompt file; raises `ValueError` naming file, line and what is wrong with it."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no prompt file at {path}")
    records = _csv_records(path) if path.suffix == ".csv" else _json_records(path)
    prompts = [_prompt(record, where) for where, record in records]
    if not prompts:
        raise ValueError(f"{path} holds no prompts")
    return prompts


def prompt_lines(prompts: Sequence[Prompt]) -> str:
    """A prompt set as JSON Lines."""
    return "".join(
        json.dumps(
            {
                "clean": p.clean,
                "patch": p.patch,
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


def encode_prompts(
    prompts: Sequence[Prompt], tokenizer: Any, *, positions: Positions, bos: Bos = "auto"
) -> EncodedPrompts:
    """Check a prompt set against a tokenizer and put it in tokens.

    Before each prompt stand the tokens that the tokenizer itself puts there, or what `bos` says.

    Raises `ValueError` naming the line when an answer is not one token, a pair is not of one
    length, clean equals patch, or, with positions kept, prompts are of different lengths.
    """
    clean = [encode_prompt(tokenizer, p.clean, bos) for p in prompts]
    with_patch = [p.patch is not None for p in prompts]
    if any(with_patch) != all(with_patch):
        odd = prompts[with_patch.index(not with_patch[0])]
        raise ValueError(f"{odd.where}: either every prompt has a patch or none has")
    patch = [encode_prompt(tokenizer, p.patch, bos) for p in prompts if p.patch is not None]
    for prompt, a, b in zip(prompts, clean, patch, strict=bool(patch)) if patch else ():
        _check_pair(prompt, a, b, tokenizer)
    if positions == "keep":
        _check_lengths(prompts, clean)
    return EncodedPrompts(
        tuple(prompts),
        pad_left(clean, _pad(tokenizer)),
        pad_left(patch, _pad(tokenizer)) if patch else None,
        tuple(_answer_ids(p, p.answer, tokenizer) for p in prompts),
        tuple(_answer_ids(p, p.wrong, tokenizer) for p in prompts),
        None if positions == "sum" else _columns(clean, tokenizer),
        begins_with=tuple(token_strings(tokenizer, start_of_text(tokenizer, bos))),
    )


def _pad(tokenizer: Any) -> int:
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id


def _check_pair(prompt: Prompt, clean: list[int], patch: list[int], tokenizer: Any) -> None:
    if len(clean) != len(patch):
        raise ValueError(
            f"{prompt.where}: clean has {len(clean)} tokens and patch {len(patch)}, but a pair "
            f"needs one length: {token_strings(tokenizer, clean)} against "
            f"{token_strings(tokenizer, patch)}"
        )
    if clean == patch:
        raise ValueError(f"{prompt.where}: clean and patch are the same prompt {prompt.clean!r}")


def _check_lengths(prompts: Sequence[Prompt], rows: Sequence[list[int]]) -> None:
    counts = Counter(map(len, rows))
    common = counts.most_common(1)[0][0]
    for prompt, row in zip(prompts, rows, strict=True):
        if len(row) != common:
            raise ValueError(
                f"{prompt.where}: {len(row)} tokens where most prompts have {common}; positions "
                "can only be kept when all prompts have one length. Use --positions end, which "
                "lines up the last tokens, or sum, or leave this prompt out"
            )


def _answer_ids(prompt: Prompt, answers: tuple[str, ...], tokenizer: Any) -> tuple[int, ...]:
    ids = []
    for answer in answers:
        tokens = encode(tokenizer, answer)
        if len(tokens) != 1:
            hint = "" if answer.startswith(" ") else "; most answers begin with a space"
            raise ValueError(
                f"{prompt.where}: the answer {answer!r} is {len(tokens)} tokens "
                f"({token_strings(tokenizer, tokens)}), expected one{hint}"
            )
        ids.append(tokens[0])
    return tuple(ids)


def _columns(rows: Sequence[list[int]], tokenizer: Any) -> tuple[str, ...]:
    """The most common token of each column, marked with … where the prompts differ."""
    labels = []
    for column in zip_longest(*(reversed(row) for row in rows)):
        [(token, count)] = Counter(t for t in column if t is not None).most_common(1)
        text = token_strings(tokenizer, [token])[0]
        labels.append(text if count == len(rows) else f"{text}…")
    return tuple(reversed(labels))


def _json_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            where = f"{path}, line {number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{where}: not JSON ({error})") from None
            if not isinstance(record, dict):
                raise ValueError(f"{where}: expected a JSON object")
            yield where, record


def _csv_records(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with path.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        for record in reader:
            yield f"{path}, line {reader.line_num}", record


# What the published layouts call our fields.
NAMES = {
    "clean": ("clean", "clean_prefix"),
    "patch": ("patch", "patch_prefix", "corrupted"),
    "answer": ("answer", "clean_answer"),
    "wrong": ("wrong", "patch_answer"),
}


def _prompt(record: Mapping[str, Any], where: str) -> Prompt:
    found = {
        field: next((record[n] for n in names if record.get(n) not in (None, "")), None)
        for field, names in NAMES.items()
    }
    if found["answer"] is None and record.get("label", "").isdigit():
        found["answer"], found["wrong"] = _later_digits(record["label"], where)
    for field in ("clean", "answer", "wrong"):
        if found[field] is None and (field == "clean" or field not in record):
            raise ValueError(
                f"{where}: no field {' or '.join(map(repr, NAMES[field]))}; "
                f"the line has {', '.join(map(repr, record))}"
            )
    answer, wrong = (_texts(found[f], f, where) for f in ("answer", "wrong"))
    if wrong and not answer:
        raise ValueError(f"{where}: a wrong answer needs a right one")
    if set(answer) & set(wrong):
        raise ValueError(f"{where}: {sorted(set(answer) & set(wrong))} is both right and wrong")
    patch = found["patch"]
    if not isinstance(found["clean"], str) or not (patch is None or isinstance(patch, str)):
        raise ValueError(f"{where}: clean and patch must be text")
    case = str(record.get("case") or "")
    return Prompt(
        clean=found["clean"], patch=patch, answer=answer, wrong=wrong, case=case, where=where
    )


def _texts(value: Any, field: str, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    values = value if isinstance(value, list) else [value]
    if not values or not all(isinstance(v, str) and v for v in values):
        raise ValueError(f"{where}: {field} must be a text or a list of texts, got {value!r}")
    return tuple(values)


def _later_digits(label: str, where: str) -> tuple[list[str], list[str]]:
    """Answers of the greater-than task, for tokenizers that split numbers into digits.

    The prompt ends within a year, before its tens digit; `label` is the two digits of the year
    that must be exceeded. Any higher digit is right, any lower one wrong.
    """
    tens = label[0]
    right, wrong = [d for d in DIGITS if d > tens], [d for d in DIGITS if d < tens]
    if not right or not wrong:
        raise ValueError(
            f"{where}: no single digit decides whether a year is later than {label!r}; "
            "leave the line out"
        )
    return right, wrong
