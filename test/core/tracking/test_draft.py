from __future__ import annotations

import re
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from elysium_core.engine.draft_tree import ROOT
from elysium_core.families.elysium import ElysiumGrammar
from elysium_core.families.json_boxes import JsonBoxGrammar
from elysium_core.geometry import Box
from elysium_core.prompt.box_text import format_track
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.tracking.box_tree import Residuals, TreeBudget
from elysium_core.tracking.draft import AnswerDraft, complete

STILL = Box(0.3, 0.3, 0.6, 0.6)
GRAMMAR = ElysiumGrammar()
GIVEN = "Frame 1: [30,30,60,60],"
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
    completed = complete(guess, written, GRAMMAR)
    assert completed is not None
    assert completed.startswith(written)
    assert form(completed) == form(guess)


@given(st.integers(0, 100), st.integers(0, 100), st.integers(0, 3))
def test_an_open_number_becomes_the_nearest_that_begins_with_it(wanted, true, length):
    digits = str(true)[:length]
    completed = complete(f"[{wanted},7]", f"[{digits}", GRAMMAR)
    value = int(completed[1:].split(",")[0])
    nearest = min(abs(int(number) - wanted) for number in NUMBERS if number.startswith(digits))
    assert abs(value - wanted) == nearest
    assert completed.endswith(",7]")


@given(pairs_of_tracks())
def test_a_whole_answer_is_left_as_it_is(tracks):
    assert complete(*tracks, GRAMMAR) == tracks[1]


@given(pairs_of_tracks(), st.text("Frame 0123456789:,.[]xé٣", max_size=20), st.floats(0, 1))
def test_whatever_is_written_is_kept_or_given_up(tracks, noise, share):
    guess, answer = tracks
    written = answer[: round(share * len(answer))] + noise
    completed = complete(guess, written, GRAMMAR)
    assert completed is None or completed.startswith(written)


@pytest.mark.parametrize(
    "written", ["The mug", "[1 2", "[101", "[05", "[,", "[1,2,3,4]]", "[1,2,3,4].x", "{", " [1", "[٣"]
)
def test_what_leaves_the_form_is_given_up(written):
    assert complete("[10,20,30,40].", written, GRAMMAR) is None


def test_numbers_that_are_complete_stay_even_out_of_range():
    assert complete("[10,20,30,40].", "[999,", GRAMMAR) == "[999,20,30,40]."


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


def drafted_ids(draft, written):
    """A draft that is one guess."""
    tree = draft(written)
    assert tree.is_chain
    return list(tree.token_ids)


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS.keys())
@given(tracks=pairs_of_tracks(), known=st.integers(0, 11))
def test_drafting_with_any_tokenizer(tokenizer, tracks, known):
    guess, answer = tracks
    # What is known of the answer, up to a frame's label, stands in the guess, too.
    labels = [match.start() for match in re.finditer(" Frame", answer)]
    given_text = answer[: labels[known % len(labels)]] if labels and known else ""
    guess_labels = [match.start() for match in re.finditer(" Frame", guess)]
    guess = given_text + (guess[guess_labels[known % len(labels)] :] if given_text else guess)

    draft = AnswerDraft(tokenizer, GRAMMAR, given_text, guess)
    whole = [*tokenizer.encode_answer(answer), tokenizer.eos_id]
    assert whole[: len(draft.given_ids)] == draft.given_ids
    right = AnswerDraft(tokenizer, GRAMMAR, given_text, answer)
    assert [*right.given_ids, *right([]).token_ids] == whole

    written, passes = whole[: len(draft.given_ids)], 0
    while len(written) < len(whole):
        for token in [*drafted_ids(draft, written[len(draft.given_ids) :]), None]:
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
    draft = AnswerDraft(tokenizer, GRAMMAR, "", guess)

    def guessed_after(text):
        written = tokenizer.encode_answer(text)
        return tokenizer.decode([*written, *draft(written).token_ids])

    assert guessed_after("Frame 1: [1") == guess.replace("[25", "[19", 1)
    assert guessed_after("Frame 1: [10,20,30,40]") == format_track([Box(0.1, 0.2, 0.3, 0.4)] * 4)
    half = guessed_after("Frame 1: [10,20,30,40], Frame 2: [12,2")
    assert half == "Frame 1: [10,20,30,40], Frame 2: [12,20,30,40], Frame 3: [10,20,30,40], Frame 4: [10,20,30,40]."


def test_what_was_given_is_no_reason_to_change_a_guess(runtime):
    tokenizer = runtime.tokenizer
    boxes = [Box(0, 0, 0.5, 0.5), Box(0.4, 0.4, 0.9, 0.9)]
    draft = AnswerDraft(tokenizer, GRAMMAR, "Frame 1: [0,0,50,50],", format_track(boxes))
    assert tokenizer.decode([*draft.given_ids, *draft(()).token_ids]) == format_track(boxes)


def test_what_leaves_the_form_is_not_drafted(runtime):
    tokenizer = runtime.tokenizer
    draft = AnswerDraft(tokenizer, GRAMMAR, "", "[10,20,30,40].")
    assert drafted_ids(draft, tokenizer.encode_answer("a red mug")) == []


def test_tokens_that_are_cut_otherwise_are_not_drafted():
    tokenizer = TOKENIZERS["numbers in one"]
    draft = AnswerDraft(tokenizer, GRAMMAR, "", "[10,20,30,40].")
    # "1" and "2" one after the other: a model may write that, but no text is encoded so.
    digits = [tokenizer.encode_answer("[1")[-1], tokenizer.encode_answer("[2")[-1]]
    assert drafted_ids(draft, [*tokenizer.encode_answer("["), *digits]) == []
    assert drafted_ids(draft, tokenizer.encode_answer("[12")) != []


def answered(draft, answer, tokenizer, read):
    """Let a model write an answer; ``read(guessed ids before a token)`` is what it says where the guess is wrong.

    Returns:
        The number of passes, and the tree of each.
    """
    whole = [*tokenizer.encode_answer(answer), tokenizer.eos_id]
    written, said, trees = list(draft.given_ids), (), []
    while len(written) < len(whole):
        tree = draft(written[len(draft.given_ids) :], said)
        trees.append(tree)
        texts, choices = [], [whole[len(written)]]
        for token, parent in zip(tree.token_ids, tree.parents, strict=True):
            texts.append([*(written if parent == ROOT else texts[parent]), token])
            right = texts[-1] == whole[: len(texts[-1])] and len(texts[-1]) < len(whole)
            choices.append(whole[len(texts[-1])] if right else read(texts[-1]))
        way = tree.follow(choices)
        written += [choices[node + 1] for node in (ROOT, *way)]
        written, said = written[: len(whole)], choices[1:]
    assert written == whole
    return trees


def learnt(*steps):
    residuals = Residuals(100)
    for step in steps * 10:
        residuals.learn((20, 20, 40, 40), tuple(20 + 20 * (i > 1) + d for i, d in enumerate(step)))
    return residuals


@given(pair=st.tuples(boxes(), boxes()), noise=st.integers(0, 2**32), tokens=st.sampled_from([0, 9, 200]))
def test_no_tree_and_nothing_that_is_said_changes_an_answer(pair, noise, tokens):
    tokenizer = TOKENIZERS["single characters"]
    random = Random(noise)
    guess, answer = (format_track([STILL, box]) for box in pair)
    draft = AnswerDraft(tokenizer, GRAMMAR, GIVEN, guess, learnt((1, 0, -1, 2)), TreeBudget(tokens, 0.0))
    trees = answered(draft, answer, tokenizer, lambda text: random.randrange(tokenizer.vocab_size))
    assert len(trees) <= 1 + sum(map(str.isdigit, answer))
    chain = len(tokenizer.encode_answer(guess)) - len(draft.given_ids) + 1
    assert len(trees[0]) <= chain + tokens


@given(pair=st.tuples(boxes(), boxes()))
def test_a_model_that_reads_on_behind_a_wrong_digit_is_heard(pair):
    tokenizer = TOKENIZERS["single characters"]
    guess, answer = (format_track([STILL, box]) for box in pair)
    numbers = re.findall("[0-9]+", answer)

    def read(text):
        """The number whose turn it is, whatever was written for those before it."""
        words = tokenizer.decode(text)
        *_, open_number = re.split("[^0-9]", words)
        turn = len(re.findall("[0-9]+", words)) - bool(open_number)
        number = numbers[min(turn, len(numbers) - 1)]
        goes_on = number.startswith(open_number) and len(number) > len(open_number)
        return tokenizer.encode_answer(f"[{number[len(open_number)]}" if goes_on else "[1,")[-1]

    draft = AnswerDraft(tokenizer, GRAMMAR, GIVEN, guess)
    # Where only second digits differ, all are heard in the first pass.
    same_tens = all(
        len(a) == len(b) and a[:-1] == b[:-1] for a, b in zip(numbers, re.findall("[0-9]+", guess), strict=True)
    )
    passes = len(answered(draft, answer, tokenizer, read))
    assert passes <= (2 if same_tens else 9)


@pytest.mark.parametrize(
    ("tokenizer", "heard"),
    [
        (TOKENIZERS["single characters"], "[15,25,35,40]."),
        (fast_tokenizer([",3"]), "[15,20,30,40]."),
        (fast_tokenizer(["0]"]), "[15,20,30,40]."),
    ],
    ids=["tokens of their own", "a token with a comma before", "a token with a bracket behind"],
)
def test_predictions_are_heard_where_numbers_have_tokens_of_their_own(tokenizer, heard):
    draft = AnswerDraft(tokenizer, GRAMMAR, "", "[10,20,30,40].")
    draft(())
    written, answer = tokenizer.encode_answer("[15"), tokenizer.encode_answer("[15,25,35,40].")
    # A prediction behind each token of the draft, in which only second digits differ from the answer.
    said = [*answer[1:], *[tokenizer.eos_id] * 2]
    assert tokenizer.decode([*written, *draft(written, said).token_ids]) == heard


def test_other_boxes_that_are_likely_end_an_answer_in_one_pass():
    tokenizer = TOKENIZERS["single characters"]
    # In the middle of their tens: no other first digit is likely.
    guess, answer = (format_track([STILL, Box(0.35, 0.35, 0.65, y2)]) for y2 in (0.65, 0.66))
    passes = {}
    for tokens in (0, 3, 4):
        residuals = learnt((0, 0, 0, 1), (0, 0, 0, 0))
        draft = AnswerDraft(tokenizer, GRAMMAR, GIVEN, guess, residuals, TreeBudget(tokens, 0.03))
        passes[tokens] = len(answered(draft, answer, tokenizer, lambda text: tokenizer.eos_id))
    # The other digit, the bracket, the full stop and the end token.
    assert passes == {0: 2, 3: 2, 4: 1}


def test_a_tree_grows_no_further_than_it_pays():
    tokenizer = TOKENIZERS["single characters"]
    guess = format_track([STILL, STILL])

    def spare(least_gain, residuals):
        draft = AnswerDraft(tokenizer, GRAMMAR, GIVEN, guess, residuals, TreeBudget(256, least_gain))
        return len(draft(())) - (len(tokenizer.encode_answer(guess)) - len(draft.given_ids) + 1)

    restless, still = learnt((-1, 1, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0)), learnt((0, 0, 0, 0))
    assert spare(1.0, restless) == 0
    assert 0 < spare(0.02, restless) < spare(0.005, restless) < spare(0.001, restless) <= 256
    assert spare(0.005, still) < spare(0.005, restless)


def test_numbers_that_are_one_token_grow_no_tree():
    tokenizer = TOKENIZERS["numbers in one"]
    draft = AnswerDraft(tokenizer, GRAMMAR, "", "[10,20,30,40].", learnt((1, 1, 1, 1)), TreeBudget(256, 0.0))
    assert draft(()).is_chain


def test_a_second_digit_is_that_of_the_last_time():
    tokenizer = TOKENIZERS["single characters"]
    residuals = Residuals(100)
    residuals.learn((30, 30, 60, 60), (30, 47, 60, 60))
    residuals.learn((30, 30, 60, 60), (30, 30, 60, 60))
    draft = AnswerDraft(tokenizer, GRAMMAR, "", format_track([STILL]), residuals)
    opened = tokenizer.encode_answer("[30,4")
    assert tokenizer.decode([*opened, *drafted_ids(draft, opened)]) == "[30,47,60,60]."
    closed = tokenizer.encode_answer("[30,41,5")
    assert tokenizer.decode([*closed, *drafted_ids(draft, closed)]) == "[30,41,59,60]."


@pytest.mark.parametrize("guess", ["Where is it?", '[{"bbox_2d": [1, 2, 3, 4], "label": "player 7"}]', "[]"])
@pytest.mark.parametrize(
    "written", ["player 1", '[{"bbox_2d": [1, 2, 3, 4], "label": "player 1', '[{"bbox_2d": [9', "7"]
)
def test_digits_outside_of_boxes_are_no_open_number(guess, written):
    """Of a label, or of an answer without any form: there is a draft, or none, but no exception."""
    words, residuals = TOKENIZERS["single characters"], Residuals(1000)
    residuals.learn((1, 2, 3, 4), (95, 2, 3, 4))
    draft = AnswerDraft(words, JsonBoxGrammar(1000), "", guess, residuals, others=["[]"])
    ids = words.encode_answer(written)
    tree = draft(ids)
    assert len(tree) == 0 or words.decode([*ids, *tree.token_ids]).startswith(words.decode(ids))
