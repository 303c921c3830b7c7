"""Text to ids and back."""

import pytest
import tiny_model

from alignarena.harness.tokens import PLAIN_TEMPLATE, Tokens


def made(**more: object) -> Tokens:
    return Tokens(tiny_model.tokenizer(), tiny_model.config("tiny", **more))  # type: ignore[arg-type]


def test_a_text_is_one_user_turn_after_the_system_message() -> None:
    tokens = made()
    words = ["<system>", "<user>", "w1", "w2", "<assistant>"]
    assert tokens.tokenizer.convert_ids_to_tokens(tokens.prompt_ids("w1 w2")) == words
    assert tokens.prompt_ids([{"role": "user", "content": "w1 w2"}]) == tokens.prompt_ids("w1 w2")
    assert tokens.tokenizer.convert_ids_to_tokens(made(system_message=None).prompt_ids("w1 w2")) == words[1:]
    given = [{"role": "system", "content": "w5"}, {"role": "user", "content": "w1 w2"}]
    assert len(tokens.prompt_ids(given)) == 6  # its own system message stands


def test_a_model_without_a_template_gets_a_plain_one() -> None:
    tokens = made(system_message=None)
    tokens.tokenizer.chat_template = None
    assert len(tokens.prompt_ids("w1 w2")) == 4  # User: w1 w2 Assistant:


def test_the_template_in_use_is_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    own, bare, same = made(), made(), made()
    bare.tokenizer.chat_template, same.tokenizer.chat_template = None, PLAIN_TEMPLATE
    assert own.digest == made().digest != bare.digest == same.digest
    monkeypatch.setattr("alignarena.harness.tokens.PLAIN_TEMPLATE", "{{ messages }}")
    assert own.digest == made().digest and bare.digest != same.digest


def test_a_tokenizer_of_python_is_named_by_its_vocabulary() -> None:
    class Own:
        eos_token_id, special_tokens_map, clean_up_tokenization_spaces = 0, {"eos_token": "a"}, False
        chat_template = None

        def __init__(self, *words: str) -> None:
            self.words = words

        def get_vocab(self) -> dict[str, int]:
            return {word: i for i, word in enumerate(self.words)}

    digests = [Tokens(Own(*words), tiny_model.config("tiny")).digest for words in ("ab", "ab", "ac")]  # type: ignore[arg-type]
    assert digests[0] == digests[1] != digests[2]


def test_completions_end_with_eos_and_come_back_without_it() -> None:
    tokens = made()
    ids = tokens.completion_ids("w1 w2")
    assert ids == (7, 8, tokens.eos_id)
    assert tokens.finished(ids) and not tokens.finished(ids[:-1]) and not tokens.finished(())
    assert tokens.text(ids) == tokens.text(ids[:-1]) == "w1 w2"
    assert tokens.text((*ids[:1], 4, 8)) == "w1 <user> w2"  # another special token stays visible


@pytest.mark.parametrize(("prompt", "completion", "expected"), [(29, 11, False), (30, 1, True), (1, 12, True)])
def test_too_long(prompt: int, completion: int, expected: bool) -> None:
    assert made().too_long(" ".join(["w1"] * prompt), " ".join(["w1"] * completion)) is expected
