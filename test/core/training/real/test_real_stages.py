from __future__ import annotations

import json
import pickle
import signal
from dataclasses import fields, replace

import pytest
import torch
from safetensors.torch import load_file
from torch._utils import ExceptionWrapper

from elysium_core.api import Elysium
from elysium_core.errors import DataError, ExpressionError
from elysium_core.training.optimizer import ScheduledAdamW
from elysium_core.training.real.box_measures import overlaps, ranking
from elysium_core.training.real.readings import draw_readings
from elysium_core.training.real.real_export import export_run
from elysium_core.training.real.real_recipe import RealStageConfig
from elysium_core.training.real.real_run import RealStageRun
from elysium_core.training.real.real_stages import StepBatch
from elysium_core.training.real.stage_data import StageData, StepBatches
from elysium_core.training.real.trained_weights import TRAINED, parameter_groups
from elysium_core.training.real.word_parts import WordParts
from elysium_core.training.recipes import load_any_recipe
from elysium_core.training.run import claim_run, run_stage
from elysium_core.training.snapshots import Snapshots
from elysium_core.vision.torch_vision import TorchVision


def stage_run(recipe, folder, name) -> RealStageRun:
    run = RealStageRun(recipe, name, folder)
    run.loop.settings = replace(run.loop.settings, log_every=1, workers=0)
    run.start()
    return run


def losses_of(folder) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture
def without_init(real_file):
    """The recipe with stages that start from nothing."""
    return load_any_recipe(
        real_file, ["stages.joint.init=[]", "stages.select.init=[]", "stages.select.distil_weight=0"]
    )


def overfit(run, batch, measures, steps=40) -> dict[str, float]:
    """Train on one batch; return the last value of each measure as a share of its first one."""
    groups = parameter_groups(run.model, run.stage.model_copy(update={"lr": 3e-3, "selector_lr": 3e-3}))
    optimizer = ScheduledAdamW(groups, 0.0)
    run.model.train()
    found = []
    for _ in range(steps):
        torch.manual_seed(0)
        losses = run.model(batch)
        losses["total"].value.backward()
        optimizer.step()
        found.append([float(losses[measure].value.detach()) for measure in measures])
    return {measure: last / first for measure, first, last in zip(measures, found[0], found[-1], strict=True)}


def with_stage(recipe, name, **changes):
    """The recipe with other settings of a stage."""
    stage = recipe.stages[name].model_copy(update=changes)
    return recipe.model_copy(update={"stages": recipe.stages | {name: stage}})


def with_find(recipe, **changes):
    """The recipe with a stage of frames alone behind the others."""
    settings = {"kind": "find", "steps": 2, "frame_batch": 3, "questions": 4, "encoder_lr": 1e-3}
    stage = RealStageConfig(**settings | changes)
    return recipe.model_copy(update={"stages": recipe.stages | {"find": stage}, "export": "find"})


@pytest.fixture
def without_words(real_file):
    """The recipe of a model that follows and knows no names."""
    return load_any_recipe(real_file, ["model.words=[]"])


class TestLearning:
    @pytest.mark.parametrize(
        ("name", "measures"),
        [
            ("select", {"sides": 0.7, "cell_gate": 0.7, "cell_name": 0.5, "cell_box": 0.7}),
            ("joint", {"answer": 0.5, "cell_name": 0.5, "word_there": 0.5, "word_name": 0.1}),
        ],
    )
    def test_the_losses_fall_on_two_pairs_and_two_frames(self, without_init, tmp_path, name, measures):
        run = RealStageRun(without_init, name, tmp_path)
        (held,) = run.held_out()
        pairs, frames = held.pairs.rows(held.pairs.is_present.nonzero()[:2, 0]), held.frames.rows(torch.arange(2))
        found = overfit(run, StepBatch(pairs, frames), measures)
        assert {key: share for key, share in found.items() if share >= measures[key]} == {}

    def test_cells_learn_what_they_show_without_the_language_model(self, real_recipe, tmp_path):
        cells = with_find(real_recipe, kind="cells", readout_weight=1.0)
        run = RealStageRun(cells, "find", tmp_path)
        frames = run.held_out()[0].frames.rows(torch.arange(2))
        measures = {"cell_gate": 0.7, "cell_name": 0.5, "cell_box": 0.7}
        found = overfit(run, StepBatch(None, frames), measures)
        assert {key: share for key, share in found.items() if share >= measures[key]} == {}
        assert float(run.model(StepBatch(None, frames))["word_readout"].value) == 1.0

    def test_reading_is_learnt_on_one_batch(self, real_recipe, tmp_path):
        run = RealStageRun(real_recipe, "read", tmp_path)
        measures = {"answer": 0.4, "word_there": 0.6, "word_name": 0.1, "total": 0.6}
        found = overfit(run, run.batches[0], measures)
        assert {key: share for key, share in found.items() if share >= measures[key]} == {}

    def test_without_words_there_are_no_frames(self, without_words, tmp_path):
        for name in without_words.stages:
            run = RealStageRun(without_words, name, tmp_path)
            assert run.model.words is None
            assert run.batches[0].frames is None
            assert run.held_out()[0].frames is None

    @pytest.mark.parametrize("name", ["read", "select", "joint"])
    def test_a_stage_changes_what_it_trains_and_nothing_else(self, real_recipe, tmp_path, name):
        run = RealStageRun(real_recipe, name, tmp_path)
        before = {key: value.clone() for key, value in run.model.state_dict().items()}
        run.loop.model.train()
        run.loop.train_step([run.batches[0]])
        changed = {key for key, value in run.model.state_dict().items() if not torch.equal(value, before[key])}
        assert {key for key in changed if not key.startswith(TRAINED[name])} == set()
        assert {part for part in TRAINED[name] if not any(key.startswith(part) for key in changed)} == set()

    def test_the_encoder_changes_where_a_rate_is_given_and_only_behind_what_crops_use(self, real_recipe, tmp_path):
        still = with_stage(real_recipe, "joint", encoder_lr=0.0)
        for recipe, blocks in ((real_recipe, {11, 12, 13, 14, 15}), (still, set())):
            run = RealStageRun(recipe, "joint", tmp_path)
            before = {key: value.clone() for key, value in run.model.state_dict().items()}
            run.loop.model.train()
            run.loop.train_step([run.batches[0]])
            after = run.model.state_dict()
            changed = {key for key in before if "visual_encoder" in key and not torch.equal(before[key], after[key])}
            assert {int(key.split("blocks.")[1].split(".")[0]) for key in changed} == blocks

    def test_the_language_model_is_asked_about_some_frames_and_all_teach_the_selector(
        self, real_recipe, tmp_path, monkeypatch
    ):
        run = RealStageRun(with_find(real_recipe, answer_frames=2), "find", tmp_path)
        asked = []
        answers = WordParts.answers

        def counted(self, llm, visual, index, objects, truth):
            asked.append((len(visual), len(index), len(objects.names), len(truth.is_on)))
            return answers(self, llm, visual, index, objects, truth)

        monkeypatch.setattr(WordParts, "answers", counted)
        (held,) = run.held_out()
        frames = held.frames.rows(torch.arange(3))
        run.model.train()
        losses = run.model(StepBatch(None, frames))
        assert asked == [(2, 2, 2, 2)]
        assert float(losses["cell_gate"].weight) == 3
        run.model.eval()
        run.model(StepBatch(None, frames))
        assert asked[1] == (3, 3, 3, 3)

    @pytest.mark.parametrize("kind", ["cells", "find"])
    def test_a_stage_of_frames_leaves_what_follows_objects_as_it_is(self, real_recipe, tmp_path, square_video, kind):
        run = RealStageRun(with_find(real_recipe, kind=kind), "find", tmp_path)
        frames, boxes = square_video(0, 2)
        crops = [frame.image[:64, :64] for frame in frames]

        def followed():
            vision = TorchVision(run.model.network.eval())
            anchors = vision.encode_anchors(crops[:1], boxes[:1])
            return [*anchors.parts(), vision.encode_crops(crops[1:], anchors), *run.model.network.llm.parameters()]

        before = [part.clone() for part in followed()]
        batch = run.batches[0]
        assert batch.pairs is None
        run.loop.model.train()
        losses = run.loop.train_step([batch])
        assert ("word_there" in losses) == (kind == "find")
        assert "cell_gate" in losses
        assert "answer" not in losses
        assert all(torch.equal(*parts) for parts in zip(before, followed(), strict=True))


@pytest.fixture(scope="module")
def finished(real_file, tmp_path_factory):
    """The folder of a run of all three stages, each evaluated at its end; read only."""
    recipe = load_any_recipe(real_file)
    changes = [f"stages.{name}.evaluate_every={stage.steps}" for name, stage in recipe.stages.items()]
    changes += [f"stages.{name}.workers=0" for name in recipe.stages]  # to start one takes seconds
    recipe, folder = load_any_recipe(real_file, changes), tmp_path_factory.mktemp("finished")
    for name in recipe.stages:
        run_stage(recipe, name, folder)
    return folder


class TestRuns:
    def test_three_stages_lead_to_a_checkpoint_that_follows(self, real_recipe, finished, square_video):
        folder = export_run(real_recipe, finished)
        listed = (folder / "SHA256SUMS").read_text()
        assert "  NOTICE\n" in listed
        assert "weights of a test; licence CC0-1.0" in (folder / "NOTICE").read_text()
        stored = load_file(folder / "model.safetensors")
        assert not any(key.startswith(("reading", "pointing", "words", "network")) for key in stored)
        assert {value.dtype for value in stored.values()} == {torch.float16}
        model = Elysium.from_pretrained(folder, device="cpu")
        tracker, (frames, boxes) = model.tracker(), square_video(0, 3)
        tracker.add(box=boxes[0])
        updates = [tracker.step(frame)[0] for frame in frames]
        assert updates[0].box.iou(boxes[0]) > 0.99
        assert [update.frame_index for update in updates] == [0, 1, 2]
        assert type(tracker).__name__ == "CropTracker"
        assert model.network.config.vocabulary == real_recipe.model.words
        # It is not trained, but what it is asked is understood, and what it is not asked is told.
        assert 0 <= model.ground(frames[0].image, "the deep sea on the left").score <= 1
        with pytest.raises(ExpressionError) as caught:
            model.ground(frames[0].image, "a zeppelin")
        assert caught.value.code == "EXPR_UNKNOWN"

    def test_a_stage_takes_what_those_before_it_have_trained(self, real_recipe, tmp_path):
        for value, name in enumerate(("read", "select"), 1):
            run = RealStageRun(real_recipe, name, tmp_path)
            for parameter in run.model.parameters():
                torch.nn.init.constant_(parameter, float(value))
            run.loop._finish()
        model = stage_run(real_recipe, tmp_path, "joint").model
        assert (model.network.target_selector.gate.weight == 2).all()
        # Select has it from read.
        assert (model.network.llm.model.embed_tokens.weight == 2).all()
        assert (model.network.adapter.token.weight == 2).all()
        assert (model.network.visual_encoder.blocks[11].convs[0].weight == 2).all()
        # What crops and frames share, no stage hands on.
        assert len(model.network.visual_encoder.stem.weight.unique()) > 2

    def test_a_stage_can_start_from_the_mean_of_others(self, real_recipe, tmp_path):
        for value, name in enumerate(("read", "select", "joint"), 1):
            run = RealStageRun(real_recipe, name, tmp_path)
            for parameter in run.model.parameters():
                torch.nn.init.constant_(parameter, float(value))
            run.loop._finish()
        recipe = with_find(real_recipe, init=("joint",), average=("read", "select"))
        model = stage_run(recipe, tmp_path, "find").model
        for weight in (model.network.adapter.token.weight, model.network.llm.model.embed_tokens.weight):
            assert torch.allclose(weight, torch.tensor(2.0))

    def test_a_stage_can_keep_a_share_of_its_first_weights(self, real_recipe, tmp_path):
        run = RealStageRun(real_recipe, "joint", tmp_path)
        for parameter in run.model.parameters():
            torch.nn.init.constant_(parameter, 2.0)
        run.loop._finish()
        run = stage_run(with_find(real_recipe, init=("joint",), keep=0.25), tmp_path, "find")
        for parameter in run.model.parameters():
            torch.nn.init.constant_(parameter, 4.0)
        run.loop._finish()
        weights = load_file(tmp_path / "find" / "state.safetensors")
        for name in ("network.adapter.token.weight", "network.llm.model.embed_tokens.weight"):
            assert (weights[name] == 3.5).all()

    def test_an_unfinished_stage_is_named(self, real_recipe, tmp_path):
        with pytest.raises(DataError, match="stage select starts from read, which has left no"):
            stage_run(real_recipe, tmp_path, "select")

    @pytest.mark.parametrize(("name", "pool"), [("read", 0), ("joint", 32)])
    def test_a_killed_run_ends_as_if_nothing_had_happened(self, without_init, tmp_path, name, pool):
        data = without_init.data.model_copy(update={"pool": pool, "frame_pool": pool})
        recipe = without_init.model_copy(update={"data": data})
        stage_run(recipe, tmp_path / "whole", name).run()
        killed = stage_run(recipe, tmp_path / "killed", name)
        step = killed.loop.train_step

        def step_or_die(batches):
            if killed.loop.step == 2:
                raise RuntimeError("killed")
            killed.loop.save()
            return step(batches)

        killed.loop.train_step = step_or_die
        with pytest.raises(RuntimeError, match="killed"):
            killed.run()
        again = stage_run(recipe, tmp_path / "killed", name)
        assert again.loop.step == 1
        again.run()
        assert losses_of(tmp_path / "killed" / name) == losses_of(tmp_path / "whole" / name)
        expected, found = (load_file(tmp_path / run / name / "state.safetensors") for run in ("whole", "killed"))
        assert all(torch.equal(value, found[key]) for key, value in expected.items())

    def test_ctrl_c_saves_and_the_same_command_goes_on(self, without_init, tmp_path, caplog):
        run = stage_run(without_init, tmp_path, "read")
        step = run.loop.train_step

        def interrupted(batches):
            if run.loop.step == 1:
                signal.raise_signal(signal.SIGINT)
            return step(batches)

        run.loop.train_step = interrupted
        with pytest.raises(KeyboardInterrupt):
            run.run()
        assert "read: stopped at step 2 of 3; its state is saved in" in caplog.text
        assert Snapshots(tmp_path / "read").newest().name == "step-00000002"
        again = stage_run(without_init, tmp_path, "read")
        assert again.loop.step == 2
        again.run()
        assert again.done

    def test_a_loss_that_is_not_finite_keeps_the_last_good_state(self, without_init, tmp_path):
        run = stage_run(without_init, tmp_path, "joint")
        run.loop.save()
        torch.nn.init.constant_(run.model.network.llm.model.norm.weight, float("nan"))
        with pytest.raises(DataError, match=r"the loss of step 0 is nan; its batch is saved as"):
            run.run()
        weights = load_file(Snapshots(run.folder).newest() / "state.safetensors")
        assert all(torch.isfinite(value).all() for value in weights.values())

    def test_an_error_of_a_worker_is_one_sentence(self, without_init, tmp_path):
        run = stage_run(without_init, tmp_path, "select")
        run.batches = StepBatches(run.batches.pairs, Broken())
        with pytest.raises(DataError) as caught:
            run.run()
        assert str(caught.value) == "no pair was found; give more photos"

    @pytest.mark.parametrize(("name", "pool"), [("read", 0), ("select", 0), ("joint", 32), ("joint", 0)])
    def test_a_worker_is_sent_all_it_needs_to_draw(self, without_init, tmp_path, name, pool):
        data = without_init.data.model_copy(update={"pool": pool, "frame_pool": pool})
        batches = StageData(without_init.model_copy(update={"data": data}), name, tmp_path).batches()
        sent = pickle.loads(pickle.dumps(batches))
        for part, own in ((sent[1].pairs, batches[1].pairs), (sent[1].frames, batches[1].frames)):
            assert all(
                torch.equal(getattr(part, field.name), getattr(own, field.name))
                for field in fields(own)
                if isinstance(getattr(own, field.name), torch.Tensor)
            )

    def test_other_sizes_need_another_folder(self, real_file, tmp_path):
        claim_run(load_any_recipe(real_file), tmp_path / "run")
        with pytest.raises(Exception, match="neck 24, not 16; choose another --out"):
            claim_run(load_any_recipe(real_file, ["model.neck=16"]), tmp_path / "run")


class Broken:
    """Draws nothing, and says so as a worker does: by the text of its traceback."""

    def __getitem__(self, number):
        try:
            raise DataError("no pair was found; give more photos")
        except DataError:
            ExceptionWrapper(where="in DataLoader worker process 0").reraise()

    def __len__(self):
        return 100


class TestEvaluation:
    @pytest.mark.parametrize(
        ("name", "measures"),
        [
            ("read", {"text_iou", "pointing_accuracy", "score_absent", "find_iou", "auroc_find", "word_look"}),
            ("select", {"head_iou", "head_hit", "auroc_gate", "cell_named", "cell_iou"}),
            ("joint", {"head_iou", "text_iou", "auroc_text", "auroc_gate", "find_iou", "find_acc50", "auroc_find"}),
        ],
    )
    def test_it_measures_on_held_out_pairs_and_leaves_a_sheet(self, finished, name, measures):
        (line,) = (finished / name / "evaluations.jsonl").read_text().splitlines()
        found = json.loads(line)
        assert measures <= found.keys()
        assert all(0 <= found[measure] <= 1 for measure in measures)
        drawn = {path.stem.partition("-")[2] for path in (finished / name).glob("pictures/*.png")}
        assert drawn == {"read": set(), "select": {"pairs"}, "joint": {"pairs", "frames"}}[name]

    def test_held_out_data_are_the_same_in_every_stage(self, without_init, tmp_path):
        (first,), (second,) = (RealStageRun(without_init, name, tmp_path).held_out() for name in ("select", "joint"))
        assert torch.equal(first.pairs.live, second.pairs.live)
        assert torch.equal(first.frames.shared, second.frames.shared)

    def test_the_ranking_is_that_of_all_pairs(self):
        scores = torch.tensor([0.9, 0.4, 0.4, 0.1])
        present = torch.tensor([True, True, False, False])
        assert float(ranking(scores, present).value) == pytest.approx((1 + 1 + 0.5 + 1) / 4)

    def test_overlaps_are_those_of_boxes(self):
        first, second = (
            torch.tensor([[0.0, 0.0, 0.5, 0.5]] * 3),
            torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.25, 0.0, 0.75, 0.5], [0.5, 0.5, 1.0, 1.0]]),
        )
        iou, giou = overlaps(first, second)
        assert iou.tolist() == pytest.approx([1, 1 / 3, 0])
        assert giou.tolist() == pytest.approx([1, 1 / 3, -0.5])


def test_readings_tell_of_the_box():
    found = draw_readings(400, 8, torch.Generator().manual_seed(0))
    best = found.gate.argmax(-1)
    iou, _ = overlaps(found.boxes[torch.arange(400), best], found.live_box)
    assert iou[found.is_present].median() > 0.7
    assert found.gate.amax(1)[found.is_present].mean() > found.gate.amax(1)[~found.is_present].mean() + 2
    assert 0.8 < found.is_present.float().mean() < 0.95
    assert (found.anchor_box[:, 2:] > found.anchor_box[:, :2]).all()


OVERFIT = [
    "stages.read.steps=450", "stages.read.batch=16", "stages.read.lr=2e-3", "stages.read.evaluate_every=0",
    "stages.select.steps=350", "stages.select.batch=16", "stages.select.selector_lr=4e-3", "stages.select.lr=2e-3",
    "stages.select.evaluate_every=0", "stages.joint.steps=250", "stages.joint.batch=16", "stages.joint.lr=1e-3",
    "stages.joint.selector_lr=1e-3", "stages.joint.evaluate_every=0", "data.pool=512",
    "model.words=[]", "data.cutout_share=0", "data.true_box_share=1", "data.absent_share=0.05",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_trained_model_follows_a_square_better_than_a_box_that_never_moves(real_file, tmp_path, square_video):
    recipe = load_any_recipe(real_file, OVERFIT)
    for name in recipe.stages:
        run_stage(recipe, name, tmp_path / "run")
    model = Elysium.from_pretrained(export_run(recipe, tmp_path / "run"), device="cpu")
    followed, frozen = [], []
    for number in range(4):
        tracker, (frames, boxes) = model.tracker(), square_video(number)
        tracker.configure(replace(tracker.config, score_threshold=0.1))
        tracker.add(box=boxes[0])
        updates = [tracker.step(frame)[0] for frame in frames]
        followed += [box.iou(u.box) if u.box is not None else 0.0 for u, box in zip(updates, boxes, strict=True)]
        frozen += [box.iou(boxes[0]) for box in boxes]
    mean, standing = sum(followed) / len(followed), sum(frozen) / len(frozen)
    assert mean > standing + 0.15
