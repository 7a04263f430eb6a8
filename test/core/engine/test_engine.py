from __future__ import annotations

import pytest
import torch

from elysium_core.engine import engine as engine_module
from elysium_core.engine.breaks import Breaks
from elysium_core.engine.draft_tree import DraftTree, DraftTrie
from elysium_core.engine.engine import Engine, EngineCounters, Request
from elysium_core.errors import BackendError

TOKENS = 24
NO_EOS = -1


@pytest.fixture
def llm(runtime):
    return runtime.family.network.llm


@pytest.fixture
def embed(runtime):
    """Embeddings of a text, as a piece of a prompt."""
    return lambda text: runtime.family.embed(runtime.tokenizer.encode_piece(text))


def plain(llm, question, prefix=None, eos_id=NO_EOS, tokens=TOKENS):
    """Token by token, by an engine of its own."""
    return Engine(llm, eos_id).answer([Request(question, None, tokens)], prefix)[0]


def replay(answer, eos_id):
    """The right draft, whatever has been written."""
    return lambda written, said=(): [*answer, eos_id][len(written) :]


def drafters(answer, eos_id, vocabulary):
    """Guesses of every kind, good and bad."""
    random = torch.Generator().manual_seed(len(answer))

    def noisy(written, said=()):
        guess = [*answer, eos_id][len(written) :]
        wrong = torch.rand(len(guess), generator=random) < 0.3
        return [(token + 1) % vocabulary if bad else token for token, bad in zip(guess, wrong, strict=True)]

    return {
        "none": None,
        "right": replay(answer, eos_id),
        "chain, as a tree": lambda written, said=(): DraftTree.chain([*answer, eos_id][len(written) :]),
        "empty": lambda written, said=(): (),
        "wrong": lambda written, said=(): [(token + 1) % vocabulary for token in answer[len(written) :]],
        "noisy": noisy,
        "over-long": lambda written, said=(): [*answer, eos_id, *answer * 4][len(written) :],
        "ends too early": lambda written, said=(): [*answer[len(written) :][:3], eos_id, *answer],
        "tree": lambda written, said=(): grown(answer, eos_id, len(written), vocabulary),
        "never ends": lambda written, said=(): [*answer, *answer * 4][len(written) :],
    }


def grown(answer, eos_id, start, vocabulary):
    """A tree in which the right way leaves a wrong one after every second token, and wrong ones leave it."""
    trie = DraftTrie()
    rest = [*answer, eos_id][start:]
    for turn in range(len(rest)):
        wrong = [(token + 1) % vocabulary for token in rest[turn : turn + 3]]
        trie.add([*rest[:turn], *wrong])
        if turn % 2:
            trie.add(rest[: turn + 2])
    return trie.tree()


def test_plain_decoding_is_that_of_transformers(llm, embed, judge):
    prompt = embed("Frame 1: what is it? ASSISTANT:")
    answer = plain(llm, prompt)
    assert answer.token_ids == judge(prompt, TOKENS)
    assert (answer.passes, answer.drafted, answer.finished) == (TOKENS, 0, False)


def test_no_draft_changes_a_token(llm, embed, judge):
    prompt = embed("Frame 1: where is the mug? ASSISTANT:")
    eos = judge(prompt, TOKENS)[-1]
    answer = judge(prompt, TOKENS, eos)
    assert len(answer) > 5
    for name, drafter in drafters(answer, eos, llm.size.vocab).items():
        result = Engine(llm, eos).answer([Request(prompt, drafter, TOKENS)])[0]
        assert (result.token_ids, result.finished) == (answer, True), name


def test_a_right_draft_needs_one_pass_and_a_wrong_one_no_more_than_none(llm, embed, judge):
    prompt = embed("Where is the mug? ASSISTANT:")
    eos = judge(prompt, TOKENS)[-1]
    answer = judge(prompt, TOKENS, eos)
    passes = {}
    for name, drafter in drafters(answer, eos, llm.size.vocab).items():
        result = Engine(llm, eos).answer([Request(prompt, drafter, 2 * TOKENS)])[0]
        passes[name] = result.passes
        if name == "right":
            assert result.accepted == result.drafted == len(answer) + 1
    undrafted = len(answer) + 1
    assert passes["none"] == passes["empty"] == passes["wrong"] == undrafted
    assert passes["right"] == passes["over-long"] == 1
    assert passes["never ends"] == 1, "the end token is the model's own word behind a right draft"
    assert 1 < passes["noisy"] < undrafted
    assert passes["chain, as a tree"] == 1
    assert 1 <= passes["tree"] < undrafted
    assert 1 < passes["ends too early"] < undrafted


def test_the_right_branch_of_a_tree_is_found_in_one_pass(llm, embed, judge):
    prompt = embed("Where is the mug? ASSISTANT:")
    right = judge(prompt, TOKENS)
    trie = DraftTrie()
    for depth in (0, 3, 7):
        trie.add([*right[:depth], *((token + 1) % llm.size.vocab for token in right[depth : depth + 5])])
    trie.add(right[:-1])
    tree = trie.tree()
    result = Engine(llm, NO_EOS).answer([Request(prompt, lambda written, said=(): tree, TOKENS)])[0]
    assert (result.token_ids, result.passes) == (right, 1)
    assert (result.drafted, result.accepted) == (len(tree), TOKENS - 1)
    assert result.logprobs == pytest.approx(plain(llm, prompt).logprobs, abs=1e-4)


def test_drafters_hear_what_is_said_behind_every_token(llm, embed, judge):
    prefix, prompt = embed("Frame 1: "), embed("Where is the mug? ASSISTANT:")
    right = judge(torch.cat([prefix, prompt]), 8)
    tree = DraftTree((right[0], 5, 6, right[1], 7, 8), (-1, 0, 1, 0, 3, -1))
    heard = []

    def drafter(written, said=()):
        heard.append(list(said))
        return tree if not written else ()

    other = Request(embed("what? ASSISTANT:"), None, 2)
    Engine(llm, NO_EOS).answer([other, Request(prompt, drafter, 8)], prefix)
    ways = [[0], [0, 1], [0, 1, 2], [0, 3], [0, 3, 4], [5]]
    expected = [
        judge(torch.cat([prefix, prompt, llm.embed(torch.tensor([tree.token_ids[n] for n in way]))]), 1)[0]
        for way in ways
    ]
    assert heard[0] == []
    assert heard[1] == expected


def test_a_tree_that_is_cut_is_not_heard(llm, embed):
    heard = []

    def drafter(written, said=()):
        heard.append(list(said))
        return DraftTree((3, 4, 5, 6), (-1, 0, 1, -1))

    result = Engine(llm, NO_EOS).answer([Request(embed("where?"), drafter, 3)])[0]
    assert result.drafted >= 3
    assert heard[1:] == [[]] * (len(heard) - 1)
    assert len(heard) > 1


def test_packed_requests_do_not_see_each_other(llm, embed, judge):
    prefix = embed("Frame 1: a mug and an apple")
    eos = judge(prefix, TOKENS)[-1]
    questions = [
        embed(text) for text in ("where? ASSISTANT:", "where is the mug? ASSISTANT:", "x", "[1,2,3,4]", "the apple")
    ]
    answers = [judge(torch.cat([prefix, question]), TOKENS, eos) for question in questions]
    kinds = [list(drafters(answer, eos, llm.size.vocab).values()) for answer in answers]
    for turn in range(len(kinds[0])):
        # Another drafter for each request in each turn.
        requests = [
            Request(question, kinds[i][(turn + 3 * i) % len(kinds[i])], TOKENS) for i, question in enumerate(questions)
        ]
        packed = Engine(llm, eos).answer(requests, prefix)
        assert [result.token_ids for result in packed] == answers


def test_one_pass_serves_all_unfinished_requests(llm, embed):
    prefix = embed("Frame 1: a mug")
    questions = [embed("where? ASSISTANT:"), embed("what is it? ASSISTANT:")]
    long, short = plain(llm, questions[0], prefix).token_ids, plain(llm, questions[1], prefix).token_ids[:4]
    engine = Engine(llm, NO_EOS)
    results = engine.answer(
        [Request(questions[0], replay(long[:10], 0), TOKENS), Request(questions[1], replay(short, 0), 4)], prefix
    )
    assert [result.token_ids for result in results] == [long, short]
    assert results[1].passes == 1
    assert engine.counters.passes == results[0].passes


def test_counters_are_exact(llm, embed):
    prefix, question = embed("Frame 1: a mug"), embed("where is it? ASSISTANT:")
    answer = plain(llm, question, prefix).token_ids
    counters = EngineCounters()
    drafter = replay([*answer[:5], (answer[5] + 1) % llm.size.vocab, *answer[6:]], 0)

    def once(written, said=()):
        return drafter(written) if not written else ()

    result = Engine(llm, NO_EOS, counters=counters).answer([Request(question, once, TOKENS)], prefix)[0]
    assert result.token_ids == answer
    # The first pass drafts all but the last token and gets 5 right and the 6th from the model.
    assert (result.drafted, result.accepted, result.passes) == (TOKENS - 1, 5, 1 + TOKENS - 6)
    assert counters.passes == result.passes
    assert counters.tokens == len(prefix) + len(question) + TOKENS - 1 + TOKENS - 6


def test_the_stem_that_questions_share_is_fed_once(llm, embed, judge):
    questions = [embed(f"Please find one {name} and say where") for name in ("mug", "apple", "teddy bear")]
    prefix = embed("Frame 1: ")
    engine = Engine(llm, NO_EOS)
    results = engine.answer([Request(question, None, 1) for question in questions], prefix)
    stem = next(i for i, rows in enumerate(zip(*questions, strict=False)) if not all(r.equal(rows[0]) for r in rows))
    assert stem > 2
    assert engine.counters.tokens == len(prefix) + stem + sum(len(question) - stem for question in questions)
    for question, result in zip(questions, results, strict=True):
        assert result.token_ids == judge(torch.cat([prefix, question]), 1)
    assert engine.prefix_length == len(prefix), "the stem is not part of what is kept"


@pytest.mark.parametrize("place", [0, 3, 6])
def test_questions_that_differ_in_the_middle_share_what_is_before(llm, place):
    ids = torch.arange(20, 27)
    questions = [llm.embed(ids)]
    ids[place] = 9
    questions.append(llm.embed(ids))
    assert engine_module._common_stem(questions) == place
    assert engine_module._common_stem([*questions, questions[0]]) == place


def test_equally_long_questions_that_differ_in_the_middle_are_answered_apart(llm, embed, judge):
    prefix = embed("Frame 1: ")
    questions = [embed(f"the box [{number},34,56,78] in Frame 1. ASSISTANT:") for number in (12, 92, 12)]
    assert len(set(map(len, questions))) == 1
    engine = Engine(llm, NO_EOS)
    results = engine.answer([Request(question, None, TOKENS) for question in questions], prefix)
    assert [r.token_ids for r in results] == [judge(torch.cat([prefix, q]), TOKENS) for q in questions]


def test_equal_questions_keep_their_last_token(llm, embed, judge):
    prompt = embed("where is the mug?")
    results = Engine(llm, NO_EOS).answer([Request(prompt, None, TOKENS)] * 3)
    assert [result.token_ids for result in results] == [judge(prompt, TOKENS)] * 3


def test_the_prefix_is_kept_over_many_calls(llm, embed, judge):
    engine = Engine(llm, NO_EOS, capacity=16)
    whole = None
    for number in range(1, 13):
        part = embed(f", Frame {number}: ")
        whole = part if whole is None else torch.cat([whole, part])
        questions = [embed(f"where is {number}?"), embed("what?")]
        fed = engine.counters.tokens
        answers = engine.answer([Request(question, None, 6) for question in questions], part)
        assert [answer.token_ids for answer in answers] == [judge(torch.cat([whole, q]), 6) for q in questions]
        assert engine.prefix_length == len(whole)
        assert engine.counters.tokens - fed < len(part) + sum(map(len, questions)) + 12
    assert engine.capacity >= len(whole)


def test_a_cropped_prefix_is_forgotten(llm, embed, judge):
    engine = Engine(llm, NO_EOS)
    opening, question = embed("Frame 1: a mug"), embed("where?")
    engine.answer([], opening)
    for number in range(2, 8):
        live = embed(f", Frame 2: {number}")
        assert engine.answer([Request(question, None, 8)], live)[0].token_ids == judge(
            torch.cat([opening, live, question]), 8
        )
        engine.crop(len(opening))
        assert engine.prefix_length == len(opening)
    assert engine.answer([Request(question, None, 8)])[0].token_ids == judge(torch.cat([opening, question]), 8)


def test_memory_grows_in_the_middle_of_an_answer(llm, embed, judge):
    engine = Engine(llm, NO_EOS, capacity=8)
    prefix, questions = embed("Frame 1: "), [embed("where?"), embed("what is it?")]
    answers = engine.answer([Request(question, None, TOKENS) for question in questions], prefix)
    assert [a.token_ids for a in answers] == [judge(torch.cat([prefix, question]), TOKENS) for question in questions]
    assert engine.capacity > 8


@pytest.mark.parametrize("drafted", [False, True])
@pytest.mark.parametrize("tokens", [1, 2, TOKENS])
def test_an_answer_is_cut_at_its_limit(llm, embed, judge, tokens, drafted):
    prompt = embed("where?")
    right = judge(prompt, 2 * TOKENS)
    result = Engine(llm, NO_EOS).answer([Request(prompt, replay(right, 0) if drafted else None, tokens)])[0]
    assert result.token_ids == right[:tokens]
    assert not result.finished
    assert result.passes == (1 if drafted else tokens)


def test_an_end_token_inside_a_draft_ends_the_answer(llm, embed, judge):
    prompt = embed("where?")
    right = judge(prompt, TOKENS)
    eos = right[7]
    first = right.index(eos)
    result = Engine(llm, eos).answer([Request(prompt, lambda written, said=(): right[len(written) :], TOKENS)])[0]
    assert (result.token_ids, result.finished, result.passes) == (right[:first], True, 1)
    assert result.accepted == first + 1, "the end token was drafted, too"


def test_an_answer_may_be_empty(llm, embed, judge):
    prompt = embed("where?")
    eos = judge(prompt, 1)[0]
    result = Engine(llm, eos).answer([Request(prompt, None, TOKENS)])[0]
    assert (result.token_ids, result.logprobs, result.finished) == ([], [], True)


def test_log_probabilities_are_those_of_a_full_recompute(llm, embed):
    prefix, question = embed("Frame 1: a mug"), embed("where is it?")
    answer = plain(llm, question, prefix).token_ids
    engine = Engine(llm, NO_EOS)
    other = Request(embed("what?"), None, 5)
    drafted = engine.answer([other, Request(question, drafters(answer, 0, llm.size.vocab)["noisy"], TOKENS)], prefix)[1]
    ids = torch.tensor(answer)
    whole = torch.cat([prefix, question, llm.embed(ids)])[None]
    with torch.inference_mode():
        hidden, _ = llm(whole, torch.arange(whole.shape[1])[None])
        logprobs = torch.log_softmax(llm.logits(hidden[0, -len(answer) - 1 : -1]), -1)
    expected = logprobs.gather(1, ids[:, None])[:, 0].tolist()
    assert drafted.token_ids == answer
    assert drafted.logprobs == pytest.approx(expected, abs=1e-4)


def test_a_model_that_writes_nan_is_refused_and_the_engine_goes_on(llm, embed, judge, monkeypatch):
    engine = Engine(llm, NO_EOS)
    opening, question = embed("Frame 1: "), embed("where?")
    engine.answer([], opening)
    with monkeypatch.context() as broken:
        broken.setattr(llm, "logits", lambda hidden: torch.full((len(hidden), llm.size.vocab), float("nan")))
        with pytest.raises(BackendError, match="not a number") as caught:
            engine.answer([Request(question)], embed(", Frame 2: "))
    assert caught.value.code == "MODEL_NAN"
    assert engine.prefix_length == len(opening)
    answer = engine.answer([Request(question, None, TOKENS)])[0]
    assert answer.token_ids == judge(torch.cat([opening, question]), TOKENS)


def test_nan_in_a_frame_does_not_stay_in_memory(llm, embed, judge):
    engine = Engine(llm, NO_EOS)
    opening, question = embed("Frame 1: "), embed("where?")
    engine.answer([], opening)
    with pytest.raises(BackendError, match="not a number"):
        engine.answer([Request(question)], torch.full_like(opening, float("nan")))
    assert engine.answer([Request(question, None, 8)])[0].token_ids == judge(torch.cat([opening, question]), 8)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), "MEMORY"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), "MEMORY"),
        (RuntimeError("CUDA error: an illegal memory access was encountered\nmore text"), "GPU_LOST"),
        (RuntimeError("CUDA error: no kernel image is available for execution on the device"), "BACKEND"),
    ],
)
def test_failures_of_the_device_are_named(llm, embed, judge, monkeypatch, error, code):
    engine = Engine(llm, NO_EOS)
    question = embed("where?")
    forward = llm.forward
    calls = []

    def fail_in_the_second_pass(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise error
        return forward(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(llm, "forward", fail_in_the_second_pass)
        with pytest.raises(BackendError) as caught:
            engine.answer([Request(question)])
    assert caught.value.code == code
    assert "\n" not in str(caught.value)
    assert engine.prefix_length == 0
    assert engine.answer([Request(question, None, 8)])[0].token_ids == judge(question, 8)


def test_without_requests_the_prefix_only_grows(llm, embed):
    engine = Engine(llm, NO_EOS)
    assert engine.answer([]) == []
    assert engine.counters.passes == 0
    assert engine.answer([], embed("Frame 1: ")) == []
    assert engine.prefix_length == len(embed("Frame 1: "))
    assert engine.counters == EngineCounters(passes=1, tokens=engine.prefix_length)


def test_engines_may_share_counters(llm, embed):
    counters = EngineCounters()
    for _ in range(2):
        Engine(llm, NO_EOS, counters=counters).answer([Request(embed("x"), None, 3)])
    assert counters.passes == 6


@pytest.mark.parametrize("part", [engine_module._PART_TOKENS, 3])
def test_in_its_breaks_other_engines_answer_and_no_token_changes(llm, embed, monkeypatch, part):
    monkeypatch.setattr(engine_module, "_PART_TOKENS", part)
    prefix, question, breaks, between = embed("Frame 1: a mug"), embed("where is it?"), Breaks(), []
    other, live = Engine(llm, NO_EOS, breaks=breaks), embed("Frame 2: an apple")
    other.answer([], live)

    def answer_another():
        assert not torch.is_inference_mode_enabled()
        between.append(other.answer([Request(embed("what?"), None, 4)])[0].token_ids)

    engine = Engine(llm, NO_EOS, breaks=breaks)
    with breaks.given_to(answer_another):
        answer = engine.answer([Request(question, None, TOKENS)], prefix)[0]
    assert answer.token_ids == plain(llm, question, prefix).token_ids
    assert between == [plain(llm, embed("what?"), live, tokens=4).token_ids] * (TOKENS - 1 + (len(prefix) - 1) // part)
    assert engine.prefix_length == len(prefix)
    engine.answer([Request(question, None, 4)])
    assert len(between) == TOKENS - 1 + (len(prefix) - 1) // part, "after the block nobody wants breaks"


def test_there_is_no_stem_without_company():
    assert engine_module._common_stem([]) == 0
    assert engine_module._common_stem([torch.ones(4, 2)]) == 0
    assert engine_module._common_stem([torch.ones(4, 2), torch.ones(2, 2)]) == 1
    assert engine_module._common_stem([torch.ones(1, 2), torch.ones(2, 2)]) == 0
