from __future__ import annotations

import numpy as np
import pytest
import torch

from elysium_core.data.synthetic.assets import trainable_names
from elysium_core.data.synthetic.clips import ClipGenerator, SyntheticClip
from elysium_core.data.synthetic.expressions import description, references
from elysium_core.data.synthetic.scene import SceneConfig
from elysium_core.prompt.box_text import parse_answer
from elysium_core.prompt.conversation import build_prompt
from elysium_core.prompt.layout import VISUAL_SLOT, PromptLayout
from elysium_core.prompt.questions import REC, REG, RSOT, SOT, VIDEO_REG
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.losses import branch_mask, place_visual_tokens
from elysium_core.training.nano.clip_batches import Batch, ClipBatches
from elysium_core.training.nano.nano_model import elysium_settings, known_nouns
from elysium_core.training.nano.turns import NOTHING, draw_turns

SEED = 3


@pytest.fixture(params=[1, 3], ids=["stills", "clips"])
def batch(builder, request) -> Batch:
    return builder.draw(SEED, 6, request.param)


def branches(batch: Batch, clip: int) -> list[int]:
    return sorted(set(batch.branch[clip].tolist()) - {0, -1})


def text_of(tokenizer, batch: Batch, clip: int, places: torch.Tensor) -> str:
    return tokenizer.decode(batch.token_ids[clip][places].tolist())


def changed(part, **values):
    """A part of a recipe with other values."""
    return part.model_copy(update=values)


class TestDrawing:
    def test_a_seed_gives_the_same_batch(self, builder):
        first = builder.draw(SEED, 6)
        builder.draw(SEED + 1, 6)
        second = builder.draw(SEED, 6)
        for name in ("images", "token_ids", "positions", "branch", "label_weight", "pointers", "patch_box"):
            assert torch.equal(getattr(first, name), getattr(second, name)), name

    def test_other_seeds_give_other_batches(self, builder):
        assert not torch.equal(builder.draw(1, 6, 1).images, builder.draw(2, 6, 1).images)

    @pytest.mark.parametrize(("frames", "clips"), [(1, 6), (2, 3), (3, 2)])
    def test_a_batch_has_as_many_frames_as_asked(self, builder, frames, clips):
        batch = builder.draw(SEED, 6, frames)
        assert batch.frames == frames
        assert len(batch.images) == 6
        assert len(batch.token_ids) == clips

    def test_a_stage_may_show_crowds(self, builder):
        batch = builder.draw(SEED, 6, 1, objects=[5])
        assert batch.patch_object.max() == 4
        assert builder.draw(SEED, 6, 1).patch_object.max() < 3

    def test_moving_keeps_everything(self, batch):
        moved = batch.to(torch.device("cpu"))
        assert moved.frames == batch.frames
        assert torch.equal(moved.token_ids, batch.token_ids)


class TestTurns:
    def test_questions_are_about_fair_targets_and_answers_are_true(self, generator, recipe):
        rng = np.random.default_rng(0)
        seen = set()
        for number in range(60):
            frames = 1 + number % 3
            clip = generator.draw_with_target(frames, 3, (0.5, 1.5))
            for turn in draw_turns(rng, clip, recipe.data, generator):
                seen.add(turn.task)
                if turn.target == NOTHING:
                    continue
                assert turn.target in clip.targets + clip.vanishing
                if turn.task in (REG, VIDEO_REG):
                    assert turn.answer == description(clip, turn.target)
                    continue
                boxes = parse_answer(turn.answer, frames).boxes
                for box, true, visible in zip(boxes, clip.boxes[turn.target], clip.visible[turn.target], strict=True):
                    assert box is not None
                    if visible > 0:
                        np.testing.assert_allclose(list(box), true, atol=0.0051)
        assert seen == {REC, REG, SOT, RSOT, VIDEO_REG}

    def test_some_questions_are_about_what_is_not_there(self, generator, recipe):
        rng = np.random.default_rng(0)
        absent = 0
        for _ in range(60):
            clip = generator.draw_with_target(1, 2, (0.5, 1.5))
            for turn in draw_turns(rng, clip, recipe.data, generator):
                if turn.target == NOTHING:
                    absent += 1
                    assert not any(f"the {name}" in turn.question for name in clip.names)
                    assert parse_answer(turn.answer, 1).boxes[0] is not None
        assert absent > 10

    def test_words_are_the_truth_about_one_object_alone(self, recipe):
        data = changed(recipe.data, absent_share=0.0, plain_share=0.3)
        scene = SceneConfig(side_px=64, twin_share=0.5, dye_share=0.4)
        generator = ClipGenerator(trainable_names()[:12], [], 0, scene)
        rng = np.random.default_rng(0)
        kinds = set()
        for _ in range(60):
            clip = generator.draw_with_target(1, 3, (1, 1))
            for turn in draw_turns(rng, clip, data, generator):
                if turn.task == REC:
                    said = [r for r in references(clip, turn.target) if r.text in turn.question]
                    assert said
                    kinds |= {reference.kind for reference in said}
        assert kinds == {"name", "color", "size", "place"}

    def test_what_is_absent_may_be_there_in_another_colour(self, recipe):
        data = changed(recipe.data, absent_share=1.0)
        generator = ClipGenerator(trainable_names()[:12], [], 0, SceneConfig(side_px=64, dye_share=0.5))
        rng = np.random.default_rng(0)
        other_color = 0
        for _ in range(40):
            clip = generator.draw_with_target(1, 2, (1, 1))
            shown = {description(clip, n) for n in range(2)}
            for turn in draw_turns(rng, clip, data, generator):
                assert turn.target == NOTHING
                assert not any(f"{words}{end}" in turn.question for words in shown for end in (" ", ".", "?"))
                other_color += any(name in turn.question for name in clip.names)
        assert other_color > 5

    def test_there_are_never_more_than_asked_for(self, generator, recipe):
        data = changed(recipe.data, max_turns=2)
        rng = np.random.default_rng(0)
        clips = [generator.draw_with_target(1, 3, (0.5, 1.5)) for _ in range(10)]
        assert max(len(draw_turns(rng, clip, data, generator)) for clip in clips) == 2


class TestLayout:
    def test_positions_go_on_where_the_frames_end(self, batch):
        for clip in range(len(batch.token_ids)):
            prefix = batch.branch[clip] == 0
            length = int(prefix.sum())
            assert batch.positions[clip][prefix].tolist() == list(range(length))
            for branch in branches(batch, clip):
                positions = batch.positions[clip][batch.branch[clip] == branch]
                assert positions.tolist() == list(range(length, length + len(positions)))

    def test_each_branch_reads_as_it_will_in_inference(self, batch, tokenizer):
        for clip in range(len(batch.token_ids)):
            for branch in branches(batch, clip):
                here = batch.branch[clip] == branch
                question = text_of(tokenizer, batch, clip, here & (batch.label_weight[clip] == 0))
                prompt = build_prompt(question.removesuffix("ASSISTANT:"), batch.frames, "")
                ids = []
                for piece in tokenizer.encode_prompt(prompt)[:-1]:
                    ids += [*piece, *[VISUAL_SLOT] * 6]
                ids += tokenizer.encode_prompt(prompt)[-1]
                packed = batch.token_ids[clip][(batch.branch[clip] == 0) | (here & (batch.label_weight[clip] == 0))]
                assert packed.tolist() == ids

    def test_prompts_open_with_the_system_text_that_inference_reads(self, recipe, tokenizer_folder):
        model = changed(recipe.model, system_text="A chat. ")
        batch = ClipBatches(changed(recipe, model=model), "vision", tokenizer_folder)[0]
        settings = elysium_settings(model, ["mug"])
        opening = PromptLayout(TextTokenizer.from_folder(tokenizer_folder), settings.system_text).frame_texts(1)[0]
        assert settings.system_text == "A chat. "
        assert batch.token_ids[0][: len(opening)].tolist() == opening

    def test_answers_alone_are_labels_and_end_with_eos(self, batch, tokenizer):
        for clip in range(len(batch.token_ids)):
            assert not batch.label_weight[clip][batch.branch[clip] <= 0].any()
            for branch in branches(batch, clip):
                here = batch.branch[clip] == branch
                labelled = batch.label_weight[clip][here] > 0
                start = int(labelled.nonzero()[0])
                assert labelled[start:].all()
                assert batch.token_ids[clip][here][-1] == tokenizer.eos_id

    def test_digits_of_boxes_weigh_most_and_format_little(self, batch, tokenizer):
        for clip in range(len(batch.token_ids)):
            for branch in branches(batch, clip):
                answer = (batch.branch[clip] == branch) & (batch.label_weight[clip] > 0)
                has_box = "[" in text_of(tokenizer, batch, clip, answer)
                for place in answer.nonzero()[:, 0]:
                    token = tokenizer.token_text(int(batch.token_ids[clip, place]))
                    weight = float(batch.label_weight[clip, place])
                    digit = bool(batch.is_digit[clip, place])
                    assert weight == pytest.approx(1.0 if digit or not has_box else 0.1)
                    if digit:
                        assert token.isdecimal()
                if has_box:
                    boxes = parse_answer(text_of(tokenizer, batch, clip, answer), batch.frames).boxes
                    digits = sum(len(str(round(100 * v))) for box in boxes if box for v in box)
                    assert int(batch.is_digit[clip][answer].sum()) == digits

    def test_padding_is_nobodys(self, builder):
        batch = builder.draw(SEED, 9, 3)
        padding = batch.branch == -1
        assert padding.any()
        assert not batch.label_weight[padding].any()


class TestPointers:
    def test_they_stand_on_brackets_of_their_branch(self, builder, tokenizer):
        kinds = set()
        for seed in range(6):
            batch = builder.draw(seed, 6)
            for clip, place, target, frame, kind in batch.pointers.tolist():
                token = tokenizer.token_text(int(batch.token_ids[clip, place]))
                kinds.add(kind)
                assert 0 <= frame < batch.frames
                assert target == NOTHING or 0 <= target < 3
                branch = batch.branch[clip] == batch.branch[clip, place]
                question = text_of(tokenizer, batch, clip, branch & (batch.label_weight[clip] == 0))
                if kind == 2:
                    assert token.endswith("]")
                    assert batch.label_weight[clip, place] == 0
                    assert frame == 0
                else:
                    assert token.endswith("[")
                    assert batch.label_weight[clip, place] > 0
                    # Kind 1: the answer to a box, which has to be looked up first.
                    assert ("[" in question) == (kind == 1)
        assert kinds == {0, 1, 2}

    def test_an_answer_about_a_clip_points_once_a_frame(self, builder):
        batch = builder.draw(SEED, 9, 3)
        frames: dict[tuple[int, int], list[int]] = {}
        for clip, place, _, frame, kind in batch.pointers.tolist():
            if kind != 2:
                frames.setdefault((clip, int(batch.branch[clip, place])), []).append(frame)
        assert frames
        assert all(found == [0, 1, 2] for found in frames.values())


class TestPatches:
    def test_they_are_what_a_loop_over_patches_finds(self, builder, generator, recipe):
        clips: list[SyntheticClip] = [generator.draw_with_target(2, 3, (0.5, 1.5)) for _ in range(2)]
        batch = builder.build(clips, [[], []])
        patch, grid = recipe.model.patch_px, 64 // recipe.model.patch_px
        for row, (clip, t) in enumerate((clip, t) for clip in clips for t in range(2)):
            for number in range(grid * grid):
                y, x = divmod(number, grid)
                owners = clip.owner[t, y * patch : (y + 1) * patch, x * patch : (x + 1) * patch]
                counts = [int((owners == n).sum()) for n in range(3)]
                best = int(np.argmax(counts))
                if counts[best] >= 0.15 * patch * patch:
                    assert batch.patch_object[row, number] == best
                    assert batch.patch_name[row, number] == clip.name_index[best]
                    np.testing.assert_array_equal(batch.patch_box[row, number], clip.boxes[best, t])
                else:
                    assert batch.patch_object[row, number] == -1
                    assert batch.patch_name[row, number] == recipe.data.names
                    assert not batch.patch_box[row, number].any()

    def test_both_kinds_of_patches_occur(self, batch, recipe):
        assert (batch.patch_object >= 0).any()
        assert (batch.patch_object == -1).any()


class TestMask:
    def test_a_token_sees_the_frames_and_its_own_branch_before_it(self):
        branch = torch.tensor([[0, 0, 1, 1, 2, -1]])
        expected = [
            [1, 0, 0, 0, 0, 0],
            [1, 1, 0, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 1, 0, 0],
            [1, 1, 0, 0, 1, 0],
            [1, 1, 0, 0, 0, 1],
        ]
        assert branch_mask(branch)[0, 0].int().tolist() == expected

    @torch.no_grad()
    def test_a_packed_branch_is_answered_as_if_it_stood_alone(self, batch, model):
        model.eval()
        llm = model.network.llm
        torch.manual_seed(0)
        visual = torch.randn(len(batch.token_ids), batch.frames * 6, llm.size.width)
        hidden, _ = llm(place_visual_tokens(llm, batch.token_ids, visual), batch.positions, branch_mask(batch.branch))
        packed = llm.logits(hidden)
        compared = 0
        for clip in range(len(batch.token_ids)):
            prefix = batch.branch[clip] == 0
            for branch in branches(batch, clip):
                alone = prefix | (batch.branch[clip] == branch)
                ids = batch.token_ids[clip][alone]
                embedded = llm.embed(ids.clamp(min=0))
                embedded[ids == VISUAL_SLOT] = visual[clip]
                # As in inference: plain positions from 0, plain causal attention.
                hidden, _ = llm(embedded[None], torch.arange(len(ids))[None])
                torch.testing.assert_close(packed[clip][alone], llm.logits(hidden)[0], atol=1e-4, rtol=1e-4)
                compared += 1
        assert compared > len(batch.token_ids)


def test_the_word_object_is_known_to_models_that_learnt_attributes(recipe):
    names = ("apple", "car")
    assert known_nouns(names, changed(recipe.data, plain_share=1.0)) == names
    assert known_nouns(names, changed(recipe.data, plain_share=0.5)) == ("apple", "car", "object")
