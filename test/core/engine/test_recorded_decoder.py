"""Padded and recorded passes on a CPU, where a recording is the program itself; and on a GPU, where it is one."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.engine.cuda_graph import CudaRecorder
from elysium_core.engine.decoder import StaticDecoder
from elysium_core.engine.engine import Engine, Request
from elysium_core.engine.recorded_decoder import (
    COLUMN_STEP,
    MAX_TOKENS,
    Bucket,
    PaddedInputs,
    RecordedDecoder,
    build_decoder,
    clear_tail,
    find_bucket,
)
from elysium_core.errors import BackendError
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.geometry import Box
from elysium_core.network.kv_cache import KVCache, KVMemory
from elysium_core.runtime import Runtime
from elysium_core.tracking.stream import StreamTracker
from elysium_core.types import TrackingConfig

EOS = 2


@pytest.fixture
def llm(runtime):
    return runtime.family.network.llm


@pytest.fixture
def recorded(llm, record):
    """A decoder that records and replays all it can."""
    return RecordedDecoder(llm, record, capacity=COLUMN_STEP)


def tree_mask(tokens, start, seed=0):
    """A mask as packed requests have it: everything of the past, and some of what is new."""
    random = torch.Generator().manual_seed(seed)
    new = torch.rand(tokens, tokens, generator=random) < 0.5
    new = new.tril() | torch.eye(tokens, dtype=torch.bool)
    past = torch.rand(tokens, start, generator=random) < 0.8
    return torch.cat([past, new], dim=1)[None, None]


@torch.inference_mode()
def start_cache(llm, start, capacity):
    """A cache with some tokens in it, and what is no number behind them."""
    cache = KVCache(KVMemory(llm.kv_shape, capacity))
    if start:
        llm(embeddings(llm, start, seed=1), torch.arange(start)[None], None, cache)
    cache.memory.keys[..., start:, :] = float("nan")
    cache.memory.values[..., start:, :] = float("inf")
    return cache


def embeddings(llm, tokens, seed=0):
    return torch.randn(1, tokens, llm.size.width, generator=torch.Generator().manual_seed(seed))


@given(tokens=st.integers(1, 3000), start=st.integers(0, 5000), capacity=st.integers(1, 6000))
def test_a_bucket_holds_its_pass_and_little_more(tokens, start, capacity):
    bucket = find_bucket(tokens, start, capacity)
    if bucket is None:
        assert tokens > MAX_TOKENS or start + tokens + 128 > capacity
        return
    assert tokens <= bucket.rows <= max(1.15 * tokens, tokens + 31)
    assert start + bucket.rows <= bucket.columns <= capacity
    assert bucket.columns % COLUMN_STEP == 0 or bucket.columns == capacity


def test_there_are_few_buckets():
    assert len({find_bucket(tokens, 900, 4096).rows for tokens in range(1, MAX_TOKENS + 1)}) < 30


@pytest.mark.parametrize(("tokens", "start"), [(1, 0), (1, 40), (7, 0), (16, 3), (33, 100), (90, 150), (16, 240)])
@torch.inference_mode()
def test_a_padded_pass_is_the_pass(llm, tokens, start):
    mask, place = (
        tree_mask(tokens, start),
        torch.randint(0, 400, (1, tokens), generator=torch.Generator().manual_seed(2)),
    )
    new = embeddings(llm, tokens)
    plain, padded = start_cache(llm, start, 256), start_cache(llm, start, 256)
    expected, _ = llm(new, place, mask, plain)
    bucket = find_bucket(tokens, start, 256)
    inputs = PaddedInputs(llm, 256)
    inputs.fill(
        Bucket(256 - start, 256),
        embeddings(llm, 256 - start, seed=9),
        place[:, :1],
        tree_mask(256 - start, start),
        start,
    )
    inputs.fill(bucket, new, place, mask, start)
    clear_tail(padded, bucket)
    inputs.run(llm, padded.memory, bucket)
    assert torch.allclose(inputs.output(tokens), expected, atol=1e-5)
    stop = start + tokens
    for found, wanted in ((padded.memory.keys, plain.memory.keys), (padded.memory.values, plain.memory.values)):
        assert torch.allclose(found[..., :stop, :], wanted[..., :stop, :], atol=1e-5)
        assert not found[..., stop:, :].any(), "rows of padding are zero, and so is what they write"


def answers(decoder, requests, prefix=None):
    engine = Engine(decoder, EOS)
    found = engine.answer(requests, prefix)
    return [(answer.token_ids, answer.passes) for answer in found], [answer.logprobs for answer in found]


def test_answers_by_recordings_are_the_same(llm, recorded, runtime):
    texts = ["where is the mug? ASSISTANT:", "what is it? ASSISTANT:", "the apple", "x"]
    prefix = runtime.family.embed(runtime.tokenizer.encode_piece("Frame 1: a mug and an apple"))
    requests = [Request(runtime.family.embed(runtime.tokenizer.encode_piece(text)), None, 24) for text in texts]
    expected, expected_logprobs = answers(llm, requests, prefix)
    for _ in range(3):
        found, logprobs = answers(recorded, requests, prefix)
        assert found == expected
        for mine, wanted in zip(logprobs, expected_logprobs, strict=True):
            assert mine == pytest.approx(wanted, abs=1e-4)
    assert recorded.replayed > 40
    assert recorded._record.made <= 3, "a shape is recorded once for all"


def follow(runtime, frames, box):
    tracker = StreamTracker(runtime, TrackingConfig(score_threshold=0.0, remove_after_s=0.0))
    for _ in range(3):
        tracker.add(box=box)
    boxes = [[update.box for update in tracker.step(frame)] for frame in frames]
    return boxes, tracker.stats.llm_passes, tracker.stats.llm_tokens


def test_following_by_recordings_is_the_same_and_takes_no_new_memory(runtime, frames, recorded):
    box, frames = Box(0.2, 0.3, 0.5, 0.6), frames[:18]
    expected = follow(runtime, frames, box)
    replaying = Runtime(ElysiumFamily(runtime.family.network, runtime.tokenizer, runtime.family.vision, recorded))
    assert follow(replaying, frames, box) == expected
    made = recorded._record.made
    assert follow(replaying, frames, box) == expected
    assert recorded._record.made <= made + 1
    assert recorded.replayed > 0.8 * expected[1]


def test_what_fits_into_no_bucket_runs_as_it_is(llm, recorded):
    tokens = COLUMN_STEP - 3  # rows are padded to more than there is room for
    assert find_bucket(tokens, 5, COLUMN_STEP) is None
    for _ in range(3):
        cache = recorded.new_cache(1)
        hidden, _ = recorded(embeddings(llm, tokens), torch.arange(tokens)[None], tree_mask(tokens, 0), cache)
        assert (hidden.shape[1], cache.length) == (tokens, tokens)
    assert recorded.replayed == 2, "from the start there is room"
    recorded(embeddings(llm, 4), torch.arange(4)[None], None, None)
    assert recorded.replayed == 2


def test_a_pass_that_failed_does_not_show_in_the_next_one(llm, recorded):
    engine = Engine(recorded, EOS)
    question = embeddings(llm, 30)[0]
    expected = Engine(llm, EOS).answer([Request(question, None, 8)])[0].token_ids
    for _ in range(3):
        with pytest.raises(BackendError, match="not a number"):
            engine.answer([Request(torch.full((60, llm.size.width), float("nan")), None, 8)])
        assert engine.answer([Request(question, None, 8)])[0].token_ids == expected
    assert recorded.replayed > 8


def test_when_recording_fails_it_is_said_once_and_all_runs_as_it_is(llm, caplog):
    def fail(program):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    decoder = RecordedDecoder(llm, fail, capacity=COLUMN_STEP)
    request = Request(embeddings(llm, 30)[0], None, 8)
    expected = answers(llm, [request])
    assert [answers(decoder, [request]) for _ in range(3)] == 3 * [expected]
    assert [record.message for record in caplog.records] == [
        "the language model runs without CUDA graphs and slower: operation not permitted when stream is capturing"
    ]
    assert decoder.description == "eager, because recording failed: operation not permitted when stream is capturing"


def test_without_memory_for_recordings_it_goes_on_without(llm, caplog):
    def fail(program):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")

    decoder = RecordedDecoder(llm, fail, capacity=COLUMN_STEP)
    request = Request(embeddings(llm, 30)[0], None, 4)
    assert answers(decoder, [request])[0] == answers(llm, [request])[0]
    assert "runs without CUDA graphs and slower: CUDA out of memory" in caplog.text
    assert decoder._inputs is None


def test_a_pass_without_memory_is_run_again_when_some_is_freed(llm, recorded, monkeypatch, caplog):
    request = Request(embeddings(llm, 30)[0], None, 6)
    expected = answers(llm, [request])
    for _ in range(2):
        answers(recorded, [request])
    assert recorded._programs
    head = llm.model.norm.forward
    fails = iter([True])

    planted = []

    def release_after_all(release=recorded.release):
        assert planted[0]() is None, "what the failed pass has allocated is free before anything is tried again"
        release()

    def fail_once(hidden):
        if next(fails, False):
            of_the_pass = torch.empty(3)
            planted.append(weakref.ref(of_the_pass))
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")
        return head(hidden)

    monkeypatch.setattr(llm.model.norm, "forward", fail_once)
    monkeypatch.setattr(recorded, "release", release_after_all)
    assert answers(recorded, [request])[0] == expected[0]
    assert "out of memory" in caplog.text
    assert recorded.description.startswith("recorded")


def test_a_pass_that_never_has_memory_is_named_and_the_next_may_have(llm, recorded, monkeypatch):
    engine = Engine(recorded, EOS)
    request = Request(embeddings(llm, 30)[0], None, 6)
    expected = answers(llm, [request])[0]

    def fail(hidden):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")

    with monkeypatch.context() as patch:
        patch.setattr(llm.model.norm, "forward", fail)
        with pytest.raises(BackendError, match="the language model ran out of memory") as caught:
            engine.answer([request])
    assert caught.value.code == "MEMORY"
    assert [(answer.token_ids, answer.passes) for answer in engine.answer([request])] == expected


def test_the_recording_that_was_used_least_goes_first(llm, record):
    decoder = RecordedDecoder(llm, record, capacity=COLUMN_STEP, most_programs=2)

    def run(tokens):
        made = record.made
        decoder(embeddings(llm, tokens), torch.arange(tokens)[None], tree_mask(tokens, 0), cache)
        cache.crop(0)
        return record.made - made

    cache = decoder.new_cache(1)
    for tokens in (10, 30, 60):
        assert run(tokens) == 0, "once is not enough to be recorded"
    assert [run(tokens) for tokens in (10, 30, 10, 60, 10, 30)] == [1, 1, 0, 1, 0, 1]
    assert len(decoder._programs) == 2


def test_larger_memory_makes_new_recordings_and_frees_the_old(llm, record):
    decoder = RecordedDecoder(llm, record, capacity=COLUMN_STEP)
    small = decoder.new_cache(1)
    for _ in range(3):
        decoder(embeddings(llm, 10), torch.arange(10)[None], tree_mask(10, 0), small)
        small.crop(0)
    large = decoder.new_cache(COLUMN_STEP + 1)
    for _ in range(2):
        decoder(embeddings(llm, 10), torch.arange(10)[None], tree_mask(10, 0), large)
        large.crop(0)
    assert [memory.capacity for memory, _ in decoder._programs] == [2 * COLUMN_STEP]
    decoder(embeddings(llm, 10), torch.arange(10)[None], tree_mask(10, 0), small)
    assert [memory.capacity for memory, _ in decoder._programs] == [2 * COLUMN_STEP, COLUMN_STEP]


def test_moved_weights_are_not_replayed_from_where_they_were(llm, recorded):
    def run():
        cache = recorded.new_cache(1)
        return recorded(embeddings(llm, 10), torch.arange(10)[None], tree_mask(10, 0), cache)[0]

    run(), run()
    llm.double()
    cache = recorded.new_cache(1)
    assert cache.memory.keys.dtype == torch.float64
    for _ in range(2):
        cache.crop(0)
        recorded(embeddings(llm, 10).double(), torch.arange(10)[None], tree_mask(10, 0), cache)
    assert recorded._inputs.output(1).dtype == torch.float64


def test_memory_is_constant_over_windows(llm):
    decoder = StaticDecoder(llm)
    places = set()
    for _ in range(10):
        engine = Engine(decoder, EOS, capacity=16)
        engine.answer([Request(embeddings(llm, 40)[0], None, 4)])
        places.add(engine._cache.memory.keys.data_ptr())
        del engine
    assert len(places) <= 2
    gc.collect()
    assert len(decoder._pool._free) == 1


def test_a_cpu_has_no_recordings(llm):
    decoder = build_decoder(llm)
    assert type(decoder) is StaticDecoder
    assert decoder.description == "eager"


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_recordings_of_a_gpu_give_the_same_answers(llm, dtype):
    device = torch.device("cuda:0")
    llm.to(device, dtype)
    decoder = build_decoder(llm)
    assert isinstance(decoder, RecordedDecoder)
    assert isinstance(decoder._record, CudaRecorder)
    requests = [Request(embeddings(llm, tokens, tokens)[0].to(device, dtype), None, 16) for tokens in (9, 20, 61)]
    expected, expected_logprobs = answers(llm, requests)
    for _ in range(4):
        found, logprobs = answers(decoder, requests)
        if dtype is torch.float32:
            assert found == expected
            assert logprobs[0] == pytest.approx(expected_logprobs[0], abs=1e-3)
    assert decoder.replayed > 30, decoder.description
    assert type(build_decoder(llm, cuda_graphs=False)) is StaticDecoder
