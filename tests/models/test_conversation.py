"""A conversation: history, the base beside the tuned model, and text cut between tokens."""

from pathlib import Path

import pytest

from tiny import tiny_model
from weitiao.models.conversation import Conversation
from weitiao.models.generate import Sampling
from weitiao.models.load import find_model, load_tokenizer
from weitiao.models.pair import Voice
from weitiao.models.pieces import text_pieces
from weitiao.records.record import Message
from weitiao.records.render import ChatFormat

TOKENIZER = load_tokenizer(find_model("embedded"))


@pytest.mark.parametrize("text", ["你好，世界", "𠮷野家🙂 ok\n第二行\n\n尾", "a\ufffdb", ""])
def test_pieces_join_to_the_text_and_no_character_is_cut(text: str) -> None:
    ids = TOKENIZER.encode(text, add_special_tokens=False)
    pieces = list(text_pieces(TOKENIZER.decode, iter(ids)))
    assert "".join(pieces) == text
    if "\ufffd" not in text:
        assert not any("\ufffd" in piece for piece in pieces)


def conversation(system: str | None = None) -> tuple[Conversation, list[list[int]]]:
    """A conversation with two models whose prompts are written down."""
    prompts: list[list[int]] = []
    chat = ChatFormat(TOKENIZER)
    seen = chat.prompt_ids

    def prompt_ids(*given: object) -> list[int]:
        prompts.append(seen(*given))  # type: ignore[arg-type]
        return prompts[-1]

    chat.prompt_ids = prompt_ids  # type: ignore[method-assign]
    models = [tiny_model(), tiny_model("llama")]
    for model in models:
        model.resize_token_embeddings(len(TOKENIZER))
    made = Conversation(
        tuned=Voice(models[0]),
        base=Voice(models[1]),
        chat=chat,
        decode=TOKENIZER.decode,
        sampling=Sampling(max_new_tokens=6),
        system=system,
    )
    return made, prompts


def test_each_turn_is_remembered_with_the_system_prompt_first() -> None:
    talk, prompts = conversation(system="你是诗人")
    first = "".join(talk.reply("你好"))
    list(talk.reply("再来"))
    shown = TOKENIZER.decode(prompts[1])
    assert shown.startswith("<|im_start|>system\n你是诗人<|im_end|>")
    assert shown.index("你好") < shown.index("再来")
    assert talk.turns[1] == Message("assistant", first)
    assert [turn.role for turn in talk.turns] == ["user", "assistant"] * 2


def test_the_base_answers_the_same_question_and_leaves_no_trace() -> None:
    talk, prompts = conversation()
    tuned = "".join(talk.reply("你好"))
    before = list(talk.turns)
    base = "".join(talk.base_reply())
    assert prompts[0] == prompts[1]
    assert base != tuned
    assert talk.turns == before


def test_an_answer_left_off_is_remembered_as_far_as_it_came() -> None:
    talk, _ = conversation()
    answer = talk.reply("你好")
    piece = next(answer)
    answer.close()
    assert talk.turns[-1] == Message("assistant", piece)
    talk.forget()
    assert talk.turns == []
    assert not talk.asked()


def test_a_folder_without_training_is_told(tmp_path: Path) -> None:
    import torch

    from weitiao.errors import ModelError
    from weitiao.models.pair import load_pair

    with pytest.raises(ModelError, match="train"):
        load_pair(find_model("embedded"), tmp_path, torch.float32, torch.device("cpu"))
