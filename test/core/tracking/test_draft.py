from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from elysium_core.geometry import Box
from elysium_core.text.box_text import format_track
from elysium_core.text.tokenizer import TextTokenizer
from elysium_core.tracking.draft import AnswerDraft, complete

NUMBERS = [str(value) for value in range(101)]


@st.composite
def boxes(draw):
    x1, y1 = draw(st.integers(0, 99)), draw(st.integers(0, 99))
    return Box(x1 / 100, y1 / 100, draw(st.integers(x1 + 1, 100)) / 100, draw(st.integers(y1 + 1, 100)) / 100)


@st.composite
def pairs_of_tracks(draw):
    """A guessed answer and a true one, about the same number of frames."""
    count = draw(st.integers(1, 12))
    tracks = [draw(st.lists(boxes(), min_size=count, max_size=count)) for _ in range(2)]
    return format_track(tracks[0]), format_track(tracks[1])


def form(text):
    return re.sub(r"[0-9]+", "#", text)


@given(pairs_of_tracks(), st.floats(0, 1))
def test_a_guess_fits_whatever_has_been_written_of_an_answer(tracks, share):
    guess, answer = tracks
    written = answer[: round(share * len(answer))]
    completed = complete(guess, written)
    assert completed is not None
    assert completed.startswith(written)
    assert form(completed) == form(guess)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 3))
def test_an_open_number_becomes_the_nearest_that_begins_with_it(wanted, true, length):
    digits = str(true)[:length]
    completed = complete(f"[{wanted},7]", f"[{digits}")
    value = int(completed[1:].split(",")[0])
    nearest = min(abs(int(number) - wanted) for number in NUMBERS if number.startswith(digits))
    assert abs(value - wanted) == nearest
    assert completed.endswith(",7]")


@given(pairs_of_tracks())
def test_a_whole_answer_is_left_as_it_is(tracks):
    assert complete(*tracks) == tracks[1]


@given(pairs_of_tracks(), st.text("Frame 0123456789:,.[]xé٣", max_size=20), st.floats(0, 1))
def test_whatever_is_written_is_kept_or_given_up(tracks, noise, share):
    guess, answer = tracks
    written = answer[: round(share * len(answer))] + noise
    completed = complete(guess, written)
    assert completed is None or completed.startswith(written)


@pytest.mark.parametrize(
    "written", ["The mug", "[1 2", "[101", "[05", "[,", "[1,2,3,4]]", "[1,2,3,4].x", "{", " [1", "[٣"]
)
def test_what_leaves_the_form_is_given_up(written):
    assert complete("[10,20,30,40].", written) is None


def test_numbers_that_are_complete_stay_even_out_of_range():
    assert complete("[10,20,30,40].", "[999,") == "[999,20,30,40]."


def fast_tokenizer(merges):
    """A tokenizer of the LLaMA kind that knows characters and some longer pieces."""
    vocab = ["<unk>", "<s>", "</s>", "▁", *(chr(code) for code in range(33, 127))]
    pairs = []
    for piece in merges:
        for end in range(2, len(piece) + 1):
            if piece[:end] not in vocab:
                vocab.append(piece[:end])
                pairs.append((piece[: end - 1], piece[end - 1]))
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(vocab)}, pairs, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    return TextTokenizer(PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>"))


TOKENIZERS = {
    "single characters": fast_tokenizer([]),
    "as LLaMA, a bracket and its comma in one": fast_tokenizer(["],", "].", "▁[", "▁Frame"]),
    "across the end of what is given": fast_tokenizer(["],▁", "]."]),
    "numbers in one": fast_tokenizer(["▁Frame", *(str(n) for n in range(10, 100))]),
    "far across": fast_tokenizer(["],▁Frame▁", ":▁["]),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
@given(tracks=pairs_of_tracks(), known=st.integers(0, 11))
def test_drafting_with_any_tokenizer(tokenizer, tracks, known):
    guess, answer = tracks
    # What is known of the answer, up to a frame's label, stands in the guess, too.
    labels = [match.start() for match in re.finditer(" Frame", answer)]
    given_text = answer[: labels[known % len(labels)]] if labels and known else ""
    guess_labels = [match.start() for match in re.finditer(" Frame", guess)]
    guess = given_text + (guess[guess_labels[known % len(labels)] :] if given_text else guess)

    draft = AnswerDraft(tokenizer, given_text, guess)
    whole = [*tokenizer.encode_answer(answer), tokenizer.eos_id]
    assert whole[: len(draft.given_ids)] == draft.given_ids
    right = AnswerDraft(tokenizer, given_text, answer)
    assert [*right.given_ids, *right([])] == whole

    written, passes = whole[: len(draft.given_ids)], 0
    while len(written) < len(whole):
        drafted = draft(written[len(draft.given_ids) :])
        for token in [*drafted, None]:
            written.append(whole[len(written)])
            if token != written[-1] or len(written) == len(whole):
                break
        passes += 1
    assert written == whole
    # Every pass gets at least to the end of a number: of a box's digits, some are wrong in the worst case.
    assert passes <= 1 + sum(map(str.isdigit, answer))


def test_later_frames_are_guessed_to_repeat_what_was_written_last(runtime):
    tokenizer = runtime.tokenizer
    guess = format_track([Box(0.25, 0.25, 0.75, 0.75)] * 4)
    draft = AnswerDraft(tokenizer, "", guess)

    def guessed_after(text):
        written = tokenizer.encode_answer(text)
        return tokenizer.decode([*written, *draft(written)])

    assert guessed_after("Frame 1: [1") == guess.replace("[25", "[19", 1)
    assert guessed_after("Frame 1: [10,20,30,40]") == format_track([Box(0.1, 0.2, 0.3, 0.4)] * 4)
    half = guessed_after("Frame 1: [10,20,30,40], Frame 2: [12,2")
    assert half == "Frame 1: [10,20,30,40], Frame 2: [12,20,30,40], Frame 3: [10,20,30,40], Frame 4: [10,20,30,40]."


def test_what_was_given_is_no_reason_to_change_a_guess(runtime):
    tokenizer = runtime.tokenizer
    boxes = [Box(0, 0, 0.5, 0.5), Box(0.4, 0.4, 0.9, 0.9)]
    draft = AnswerDraft(tokenizer, "Frame 1: [0,0,50,50],", format_track(boxes))
    assert tokenizer.decode([*draft.given_ids, *draft(())]) == format_track(boxes)


def test_what_leaves_the_form_is_not_drafted(runtime):
    tokenizer = runtime.tokenizer
    draft = AnswerDraft(tokenizer, "", "[10,20,30,40].")
    assert list(draft(tokenizer.encode_answer("a red mug"))) == []


def test_tokens_that_are_cut_otherwise_are_not_drafted():
    tokenizer = TOKENIZERS["numbers in one"]
    draft = AnswerDraft(tokenizer, "", "[10,20,30,40].")
    # "1" and "2" one after the other: a model may write that, but no text is encoded so.
    digits = [tokenizer.encode_answer("[1")[-1], tokenizer.encode_answer("[2")[-1]]
    assert list(draft([*tokenizer.encode_answer("["), *digits])) == []
    assert list(draft(tokenizer.encode_answer("[12"))) != []
