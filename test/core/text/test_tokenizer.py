"""Token ids of prompts and answers, with a small tokenizer of the LLaMA kind."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE

from elysium_core.errors import ExpressionError, ModelFileError
from elysium_core.geometry import Box
from elysium_core.text.box_text import format_track, parse_answer
from elysium_core.text.build_tokenizer import save_tokenizer, train_tokenizer
from elysium_core.text.conversation import build_prompt, frame_pieces, question_piece
from elysium_core.text.expression import clean_expression
from elysium_core.text.questions import PUBLISHED, RSOT, fill
from elysium_core.text.tokenizer import TextTokenizer

BOS, EOS = 1, 2
RESERVED = ("<image>", "<s>", "</s>", "<unk>", "USER:", "ASSISTANT:", "{box}", "[INST]")


@pytest.fixture(scope="session")
def tokenizer_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    corpus = [
        *frame_pieces(32, "A chat. "),
        format_track([Box(0.12, 0.34, 0.56, 0.78)] * 32),
        question_piece(fill(PUBLISHED[RSOT], expression="the red mug")),
    ]
    save_tokenizer(train_tokenizer(corpus, 600), folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(tokenizer_folder):
    return TextTokenizer.from_folder(tokenizer_folder)


@pytest.fixture
def damaged(tokenizer_folder, tmp_path):
    """A copy of the tokenizer that a test may damage."""
    return shutil.copytree(tokenizer_folder, tmp_path / "tokenizer")


def tokens(tokenizer, ids):
    return [tokenizer.token_text(token_id) for token_id in ids]


def test_special_ids_are_those_of_llama(tokenizer):
    assert (tokenizer.bos_id, tokenizer.eos_id) == (BOS, EOS)


def test_a_box_is_thirteen_tokens(tokenizer):
    ids = tokenizer.encode_answer("[23,45,46,72]")
    assert tokens(tokenizer, ids) == ["▁[", *"23,45,46,72]"]
    assert len(ids) == 13


def test_a_frame_label_is_short(tokenizer):
    ids = tokenizer.encode_piece(", Frame 2: ")
    assert tokens(tokenizer, ids) == ["<s>", "▁,", "▁Frame", "▁2", ":", "▁"]


@pytest.fixture
def llama_excerpt(tmp_path):
    """The few entries of LLaMA's vocabulary that frame labels and boxes need, with their real ids."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁,": 1919, "▁Frame": 12218, "▁[": 518, "▁": 29871}
    vocab |= {",": 29892, ":": 29901, "[": 29961, "]": 29962}
    digits = (29900, 29896, 29906, 29941, 29946, 29945, 29953, 29955, 29947, 29929)
    vocab |= {str(digit): token_id for digit, token_id in enumerate(digits)}
    pieces = [*"Frame", "Fr", "Fra", "Fram", "Frame"]  # on the way to "▁Frame"; their ids do not matter here
    vocab |= {piece: 100 + place for place, piece in enumerate(pieces)}
    merges = [("▁", ","), ("▁", "["), ("F", "r"), ("Fr", "a"), ("Fra", "m"), ("Fram", "e"), ("▁", "Frame")]
    save_tokenizer(llama_like(vocab, merges), tmp_path)
    return TextTokenizer.from_folder(tmp_path)


def llama_like(vocab, merges):
    tokenizer = Tokenizer(BPE(vocab=vocab, merges=merges, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return tokenizer


def test_ids_of_the_published_protocol(llama_excerpt):
    assert llama_excerpt.encode_piece(", Frame 2: ") == [1, 1919, 12218, 29871, 29906, 29901, 29871]
    box = [518, 29906, 29941, 29892, 29946, 29945, 29892, 29946, 29953, 29892, 29955, 29906, 29962]
    assert llama_excerpt.encode_answer("[23,45,46,72]") == box


def test_every_piece_of_a_prompt_opens_with_bos_and_answers_do_not(tokenizer):
    prompt = build_prompt("Why?", 3, "A chat. ")
    pieces = tokenizer.encode_prompt(prompt)
    assert [piece[0] for piece in pieces] == [BOS] * 4
    assert [BOS, *tokenizer.encode_answer(prompt.pieces[1])] == pieces[1]
    assert all(ids.count(BOS) == 1 and EOS not in ids for ids in pieces)


@given(st.lists(st.integers(0, 99), min_size=2, max_size=16))
def test_answers_survive_encoding(tokenizer, edges):
    boxes = [Box(0, 0, (edge + 1) / 100, 1) for edge in edges]
    text = tokenizer.decode([*tokenizer.encode_answer(format_track(boxes)), EOS])
    assert text == format_track(boxes)
    assert parse_answer(text, len(boxes)).boxes == tuple(boxes)


@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=60))
def test_any_text_survives_encoding_and_makes_no_special_token(tokenizer, text):
    ids = tokenizer.encode_answer(text)
    assert not {BOS, EOS} & set(ids)
    assert tokenizer.decode(ids) == text.strip()


@pytest.mark.parametrize("word", RESERVED)
def test_spelled_special_tokens_are_characters(tokenizer, word):
    ids = tokenizer.encode_answer(f"a {word} b")
    assert not {0, BOS, EOS} & set(ids)
    assert tokenizer.decode(ids) == f"a {word} b"


@given(words=st.text(max_size=20) | st.sampled_from(RESERVED), before=st.text(max_size=5), frames=st.integers(1, 8))
def test_a_users_words_never_change_the_shape_of_a_prompt(tokenizer, words, before, frames):
    """Refused, or as many image slots and special ids as for "dog"."""
    try:
        expression = clean_expression(before + words)
    except ExpressionError:
        return
    pieces = tokenizer.encode_prompt(build_prompt(fill(PUBLISHED[RSOT], expression=expression), frames, "A chat. "))
    plain = tokenizer.encode_prompt(build_prompt(fill(PUBLISHED[RSOT], expression="dog"), frames, "A chat. "))
    assert len(pieces) == len(plain) == frames + 1
    assert pieces[:-1] == plain[:-1]
    assert [token for token in pieces[-1] if token < 3] == [token for token in plain[-1] if token < 3] == [BOS]


def test_decoding_leaves_special_tokens_out(tokenizer):
    assert tokenizer.decode([BOS, *tokenizer.encode_answer("the red mug"), EOS]) == "the red mug"


def test_words_of_the_corpus_are_one_token(tokenizer):
    assert tokens(tokenizer, tokenizer.encode_answer("the red mug")) == ["▁the", "▁red", "▁mug"]


def test_vocabulary_holds_every_id(tokenizer):
    assert tokenizer.token_text(tokenizer.vocab_size - 1)
    assert tokenizer.token_text(tokenizer.vocab_size) == ""


# Damaged tokenizers.


@pytest.mark.parametrize("text", ["", "{}", "{", "[]", "null", "[" * 100_000, '{"model": {}}'])
def test_a_damaged_file_is_refused_in_one_sentence(damaged, text):
    (damaged / "tokenizer.json").write_text(text)
    with pytest.raises(ModelFileError, match=f"cannot load a tokenizer from {damaged}: ") as caught:
        TextTokenizer.from_folder(damaged)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused(damaged):
    path = damaged / "tokenizer.json"
    path.write_text(path.read_text()[: path.stat().st_size // 3])
    with pytest.raises(ModelFileError, match=str(damaged)):
        TextTokenizer.from_folder(damaged)


def test_a_folder_without_tokenizer(tmp_path):
    with pytest.raises(ModelFileError, match=f"no tokenizer in {tmp_path}"):
        TextTokenizer.from_folder(tmp_path)


def test_a_tokenizer_without_end_token(damaged):
    (damaged / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>"})
    )
    with pytest.raises(ModelFileError, match="names no eos token"):
        TextTokenizer.from_folder(damaged)


def test_a_tokenizer_with_code_is_refused(damaged, monkeypatch):
    (damaged / "evil.py").write_text("raise SystemExit('ran')")
    monkeypatch.syspath_prepend(str(damaged))
    path = damaged / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_map": {"AutoTokenizer": ["evil.T", None]}}))
    with pytest.raises(ModelFileError, match="auto_map") as caught:
        TextTokenizer.from_folder(damaged)
    assert caught.value.code == "MODEL_UNSAFE"
    assert "evil" not in sys.modules


def test_a_sentencepiece_file_names_the_packages_it_needs(damaged, monkeypatch):
    (damaged / "tokenizer.json").rename(damaged / "tokenizer.model")
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    monkeypatch.setattr("elysium_core.text.tokenizer.find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match="pip install sentencepiece protobuf"):
        TextTokenizer.from_folder(damaged)
