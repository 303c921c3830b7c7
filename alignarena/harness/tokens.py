"""Text to token ids and back: one function for every method, applied once a row at the lab's boundary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from alignarena.core.digest import digest
from alignarena.core.errors import BadInput
from alignarena.core.model import ModelConfig

# For a base model without a chat template; part of the model's digest, so it is the same for every method.
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['role'] | capitalize }}: {{ m['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
Ids = tuple[int, ...]


class TokenSequence(NamedTuple):
    """A prompt and one completion as token ids; the completion holds its EOS where it ends by itself."""

    prompt: Ids
    completion: Ids


class Tokens:
    """The tokenizer of a comparison with its template, its EOS and its limits."""

    def __init__(self, tokenizer: Any, config: ModelConfig) -> None:
        """Take a tokenizer.

        Raises:
            BadInput: The tokenizer has no EOS token, so no completion could end.
        """
        self.tokenizer = tokenizer
        self.config = config
        if tokenizer.eos_token_id is None:
            name = config.model_name_or_path
            raise BadInput(f"the tokenizer of {name!r} has no eos_token; set one and save it again")
        self.eos_id: int = tokenizer.eos_token_id
        self._of_text = lru_cache(maxsize=4096)(self._rendered)  # a prompt comes back in every pair and every round
        self._as_text = lru_cache(maxsize=4096)(self._decoded)  # and so do short completions

    @property
    def digest(self) -> str:
        """Name of how text becomes tokens and back, wherever the tokenizer lies: its content and the template."""
        of, fast = self.tokenizer, getattr(self.tokenizer, "backend_tokenizer", None)
        content = (type(of).__qualname__, of.get_vocab()) if fast is None else fast.to_str()
        template = of.chat_template or PLAIN_TEMPLATE
        return digest(content, of.special_tokens_map, self.eos_id, of.clean_up_tokenization_spaces, template)

    def prompt_ids(self, prompt: str | Sequence[Mapping[str, str]]) -> Ids:
        """Render a prompt (text: one user turn; or messages) with the chat template, ready to be continued."""
        return self._of_text(prompt) if isinstance(prompt, str) else self._rendered(prompt)

    def _rendered(self, prompt: str | Sequence[Mapping[str, str]]) -> Ids:
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        if self.config.system_message is not None and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self.config.system_message})
        template = None if self.tokenizer.chat_template else PLAIN_TEMPLATE
        ids = self.tokenizer.apply_chat_template(
            messages, chat_template=template, add_generation_prompt=True, tokenize=True, return_dict=False
        )
        return tuple(ids)

    def completion_ids(self, text: str) -> Ids:
        """Tokenise a whole completion and end it with EOS: ending is an action, and it is scored."""
        return (*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.eos_id)

    def text(self, completion: Sequence[int]) -> str:
        """Decode a completion without its final EOS; other special tokens stay visible to judges and readers."""
        return self._as_text(tuple(completion[:-1] if self.finished(completion) else completion))

    def _decoded(self, ids: Ids) -> str:
        decoded: str = self.tokenizer.decode(list(ids), skip_special_tokens=False)
        return decoded.strip()

    def finished(self, completion: Sequence[int]) -> bool:
        """Tell whether a completion ends by itself."""
        return bool(completion) and completion[-1] == self.eos_id

    def too_long(self, prompt: Any, completion: str = "") -> bool:
        """Tell whether a prompt or completion exceeds the limits of the comparison."""
        return (
            len(self.prompt_ids(prompt)) > self.config.max_prompt_tokens
            or len(self.completion_ids(completion)) > self.config.max_new_tokens
        )

    def prompt_of(self, row: Mapping[str, Any], column: str = "prompt", limited: bool = True) -> Ids:
        """Return the ids of a row's prompt, the stored ones where the row was sampled.

        Raises:
            BadInput: The prompt is longer than ``model.max_prompt_tokens``, and ``limited`` to it.
        """
        stored = row.get("prompt_ids") if column == "prompt" else None
        ids = tuple(stored) if stored else self.prompt_ids(row[column])
        if limited and len(ids) > self.config.max_prompt_tokens:
            raise BadInput(
                f"prompt {row.get('prompt_id')!r} has {len(ids)} tokens, more than model.max_prompt_tokens = "
                f"{self.config.max_prompt_tokens}; raise it or shorten the prompt"
            )
        return ids

    def completions_of(self, row: Mapping[str, Any], column: str) -> list[Ids]:
        """Return the ids of a row's completion, or of its K completions; sampled ids are never re-tokenised."""
        stored, value = row.get(f"{column}_ids"), row[column]
        if isinstance(value, str):
            return [self.completion_ids(value) if stored is None else tuple(stored)]
        return [self.completion_ids(text) for text in value] if stored is None else [tuple(ids) for ids in stored]
