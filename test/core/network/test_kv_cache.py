"""The key/value cache: memory that is taken once."""

from __future__ import annotations

import pytest
import torch

from elysium_core.network.kv_cache import KVCache, KVMemory, KVPool, KVShape

LAYERS, HEADS, WIDTH, CAPACITY = 2, 3, 4, 10
SHAPE = KVShape(LAYERS, HEADS, WIDTH, torch.device("cpu"), torch.float32)


@pytest.fixture
def cache():
    return KVCache(KVMemory(SHAPE, CAPACITY))


@pytest.fixture
def pool():
    return KVPool(SHAPE, step=8)


def new_tokens(count, seed=0):
    torch.manual_seed(seed)
    return torch.randn(1, HEADS, count, WIDTH), torch.randn(1, HEADS, count, WIDTH)


def append(cache, keys, values):
    for layer in range(LAYERS):
        seen = cache.update(layer, keys + layer, values + layer)
    cache.advance(keys.shape[2])
    return seen


def test_starts_empty_with_its_whole_capacity(cache):
    assert (cache.length, cache.capacity) == (0, CAPACITY)


def test_new_tokens_follow_the_old_ones_in_every_layer(cache):
    first, second = new_tokens(4), new_tokens(3, seed=1)
    append(cache, *first)
    for layer in range(LAYERS):
        keys, values = cache.update(layer, second[0] + layer, second[1] + layer)
        assert torch.equal(keys, torch.cat([first[0], second[0]], dim=2) + layer)
        assert torch.equal(values, torch.cat([first[1], second[1]], dim=2) + layer)


def test_length_moves_only_when_all_layers_have_written(cache):
    cache.update(0, *new_tokens(4))
    assert cache.length == 0
    cache.advance(4)
    assert cache.length == 4


def test_can_be_filled_to_the_last_place_and_no_further(cache):
    append(cache, *new_tokens(CAPACITY))
    with pytest.raises(ValueError, match="holds 10 tokens, 11 are needed"):
        cache.update(0, *new_tokens(1))


def test_cropped_tokens_are_overwritten(cache):
    kept = new_tokens(6)
    append(cache, *kept)
    cache.crop(2)
    fresh = new_tokens(3, seed=1)
    keys, _ = cache.update(0, *fresh)
    assert torch.equal(keys, torch.cat([kept[0][:, :, :2], fresh[0]], dim=2))


def test_crop_to_zero_empties(cache):
    append(cache, *new_tokens(6))
    cache.crop(0)
    keys, _ = cache.update(0, *new_tokens(2, seed=1))
    assert keys.shape[2] == 2


@pytest.mark.parametrize("length", [-1, 5])
def test_crop_refuses_what_is_not_there(cache, length):
    append(cache, *new_tokens(4))
    with pytest.raises(ValueError, match=f"cache of 4 tokens to {length}"):
        cache.crop(length)
    assert cache.length == 4


def test_no_memory_is_taken_while_it_fills(cache):
    place = cache.update(0, *new_tokens(1))[0].data_ptr()
    cache.advance(1)
    assert cache.update(0, *new_tokens(5))[0].data_ptr() == place


def test_grown_cache_holds_the_same_tokens_and_leaves_the_old_one(cache):
    first, second = new_tokens(8), new_tokens(6, seed=1)
    append(cache, *first)
    larger = cache.grown(20)
    assert (larger.length, larger.capacity) == (8, 20)
    keys, values = larger.update(0, *second)
    assert torch.equal(keys, torch.cat([first[0], second[0]], dim=2))
    assert torch.equal(values, torch.cat([first[1], second[1]], dim=2))
    assert cache.length == 8


def test_memory_is_handed_on_when_a_cache_is_gone(pool):
    first = pool.take(10)
    place = first.memory.keys.data_ptr()
    second = pool.take(3)
    assert second.memory.keys.data_ptr() != place
    append(first, *new_tokens(5))
    del first
    again = pool.take(10)
    assert (again.memory.keys.data_ptr(), again.length, again.capacity) == (place, 0, 16)


def test_what_one_cache_grew_to_the_next_one_has_at_once(pool):
    cache = pool.take(8)
    tokens = new_tokens(6)
    append(cache, *tokens)
    cache = cache.grown(20)
    assert (cache.length, cache.capacity) == (6, 24)
    assert torch.equal(cache.update(0, *new_tokens(1))[0][:, :, :6], tokens[0])
    place = cache.memory.keys.data_ptr()
    del cache
    again = pool.take(8)
    assert (again.capacity, again.memory.keys.data_ptr()) == (24, place), "the smaller memory is not kept"


def test_two_windows_that_take_turns_need_the_memory_of_two(pool):
    places = set()
    window = pool.take(8)
    for _ in range(20):
        following = pool.take(8)
        places |= {window.memory.keys.data_ptr(), following.memory.keys.data_ptr()}
        window = following
    assert len(places) == 2


def test_trimmed_memory_is_not_handed_on(pool):
    kept, memory = pool.take(8), pool.take(8).memory
    pool.trim()
    assert pool.take(8).memory not in (kept.memory, memory)


def test_a_token_takes_its_keys_and_values():
    memory = KVMemory(SHAPE, CAPACITY)
    assert SHAPE.token_bytes * CAPACITY == memory.keys.nbytes + memory.values.nbytes
