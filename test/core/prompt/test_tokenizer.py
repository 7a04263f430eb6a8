"""Token ids of prompts and answers, with a small tokenizer of the LLaMA kind."""

from __future__ import annotations

import io
import json
import shutil
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, normalizers
from tokenizers.models import BPE

from elysium_core.errors import ExpressionError, ModelFileError
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_track, parse_answer
from elysium_core.prompt.build_tokenizer import save_tokenizer, train_tokenizer
from elysium_core.prompt.conversation import build_prompt, frame_pieces, question_piece
from elysium_core.prompt.expression import clean_expression
from elysium_core.prompt.questions import PUBLISHED, RSOT, fill
from elysium_core.prompt.tokenizer import TextTokenizer

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


@example("\u2581")
@example("a\u2581b")
@given(st.text(st.characters(blacklist_categories=("Cs",)), max_size=60))
def test_any_text_survives_encoding_and_makes_no_special_token(tokenizer, text):
    ids = tokenizer.encode_answer(text)
    assert not {BOS, EOS} & set(ids)
    # U+2581 is how tokenizers of this family write a blank, so it comes back as one.
    assert tokenizer.decode(ids) == text.replace("\u2581", " ").strip()


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
    monkeypatch.setattr("elysium_core.prompt.tokenizer.find_spec", lambda name: None)
    with pytest.raises(ModelFileError, match="pip install sentencepiece protobuf"):
        TextTokenizer.from_folder(damaged)


# Tokenizer and language model belong together.


def add_tokens(folder, settings=(), **added):
    """Add tokens behind the last one of a tokenizer's file; returns their ids."""
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    first = 1 + max(content["model"]["vocab"].values())
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    content["added_tokens"] += [
        {"id": first + place, "content": word, "special": special, **plain}
        for place, (word, special) in enumerate(added.items())
    ]
    path.write_text(json.dumps(content))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | dict(settings)))
    return list(range(first, first + len(added)))


def test_a_tokenizer_fits_embeddings_of_its_size_and_larger(tokenizer):
    tokenizer.check_fits(tokenizer.vocab_size)
    tokenizer.check_fits(tokenizer.vocab_size + 64)


def test_a_tokenizer_that_is_larger_than_the_language_model_is_refused(tokenizer):
    last = tokenizer.vocab_size - 1
    with pytest.raises(ModelFileError) as caught:
        tokenizer.check_fits(last)
    assert str(caught.value) == (
        f"the tokenizer writes {tokenizer.token_text(last)!r} as id {last}, but the language model has embeddings for "
        f"the ids 0..{last - 1} only; put the tokenizer that the model was trained with into its folder"
    )


@pytest.mark.parametrize("kind", ["bos", "eos"])
def test_a_special_token_without_an_embedding_is_refused(damaged, kind):
    (added,) = add_tokens(damaged, {f"{kind}_token": "[new]"}, **{"[new]": True})
    loaded = TextTokenizer.from_folder(damaged)
    assert getattr(loaded, f"{kind}_id") == added
    with pytest.raises(ModelFileError, match=rf"as id {added}, but the language model has embeddings"):
        loaded.check_fits(added)


def test_an_added_word_needs_an_embedding_but_a_token_that_never_occurs_does_not(damaged):
    word, never = add_tokens(damaged, **{"zeppelin": False, "[pad]": True})
    loaded = TextTokenizer.from_folder(damaged)
    assert word in loaded.encode_answer("a zeppelin")
    assert never not in loaded.encode_answer("a [pad]")
    loaded.check_fits(word + 1)
    with pytest.raises(ModelFileError, match=f"'zeppelin' as id {word}"):
        loaded.check_fits(word)


# The published language model comes with a sentencepiece file only.


@pytest.fixture(scope="module")
def sentencepiece_file():
    """A small file of the LLaMA kind, and the program that reads it."""
    sentencepiece = pytest.importorskip("sentencepiece")
    texts = [*frame_pieces(8, "A chat. "), *map(question_piece, PUBLISHED.values()), "Frame 1: [23,45,46,72], "]
    texts += [f"[{left},{top},90,100]" for left in range(9) for top in range(9)]
    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(texts * 3),
        model_writer=written,
        vocab_size=440,
        model_type="bpe",
        byte_fallback=True,
        split_digits=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
    )
    return written.getvalue(), sentencepiece.SentencePieceProcessor(model_proto=written.getvalue())


@pytest.mark.parametrize("settings", [{}, {"legacy": True}, {"legacy": False}], ids=["silent", "legacy", "new"])
def test_a_sentencepiece_file_gives_the_ids_of_its_own_program(sentencepiece_file, tmp_path, settings):
    content, judge = sentencepiece_file
    (tmp_path / "tokenizer.model").write_bytes(content)
    names = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({**names, "add_bos_token": True, **settings}))
    loaded = TextTokenizer.from_folder(tmp_path)
    assert (loaded.bos_id, loaded.eos_id, loaded.vocab_size) == (BOS, EOS, judge.vocab_size())
    prompt = build_prompt("Where is the à  mug (small)?", 3, "A chat. ")
    for piece, ids in zip(prompt.pieces, loaded.encode_prompt(prompt), strict=True):
        assert ids == [BOS, *judge.encode(piece)]
    for text in ("[23,45,46,72]", "Frame 1: [1,2,3,4], Frame 2: [0,0,100,100].", "USER: Why?ASSISTANT:", "zeppelin"):
        assert loaded.encode_answer(text) == judge.encode(text)
        assert loaded.decode(loaded.encode_answer(text)) == text
