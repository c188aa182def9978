"""A model under an edit, or under a control of one."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass

from transformer_lens.model_bridge import TransformerBridge

from saes.edit import Edit, Redirect, applied
from saes.edited_pass import Patch
from saes.suite import Suite

TOKENS_AT_ONCE = 2048
"Tokens of a text that are run in one pass."


@dataclass(frozen=True, kw_only=True, eq=False)
class Edited:
    """A model under an edit, or under a control of one."""

    model: TransformerBridge
    suite: Suite
    edit: Edit
    redirect: Redirect | None = None
    must_fire: bool = True

    @property
    def needs_patch(self) -> bool:
        return any(op.needs == "patch" for op in self.edit.operations)

    @contextmanager
    def applied(self, patch: Patch | None = None) -> Generator[None, None, None]:
        """The edit in every run inside the block."""
        with applied(
            self.model,
            self.suite,
            self.edit,
            patch=patch,
            must_fire=self.must_fire,
            redirect=self.redirect,
        ):
            yield
