from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from elysium_core.network.adapters import ConvTSelectorAdapter
from elysium_core.network.conv_layers import cell_centers
from elysium_core.network.efficientnet import EfficientNetConfig, EfficientNetEncoder
from elysium_core.network.llama import Llama, LlamaSize
from elysium_core.network.model_config import AdapterConfig
from elysium_core.prompt.layout import PromptLayout
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.training.real.frame_features import NOTHING, FrameFeatures, FrameObjects
from elysium_core.training.real.frame_losses import WordLosses, WordWeights, cell_losses, cell_total
from elysium_core.training.real.frame_prompts import FramePrompts
from elysium_core.training.real.frame_questions import ABSENT, FrameQuestion, QuestionDrawer
from elysium_core.training.real.frame_readings import FrameReadingSource
from elysium_core.training.real.frame_truth import assign_cells
from elysium_core.training.real.readings import ReadingTokens
from elysium_core.training.real.word_parts import WordParts

NAMES = ("mug", "apple", "teddy bear")
CELLS, KEPT, TOKEN_WIDTH, WIDTH = 8, 20, 24, 64
SIZE = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


@pytest.fixture
def parts(crop_folder) -> WordParts:
    tokenizer = TextTokenizer.from_folder(crop_folder / "llm")
    torch.manual_seed(0)
    prompts = FramePrompts(PromptLayout(tokenizer, ""), KEPT, NAMES)
    drawer = QuestionDrawer(NAMES, torch.ones(3, dtype=torch.int64).numpy())
    return WordParts(prompts, drawer, CELLS, 4, TOKEN_WIDTH, WIDTH)


@pytest.fixture
def llm(crop_folder) -> Llama:
    torch.manual_seed(0)
    vocab = TextTokenizer.from_folder(crop_folder / "llm").vocab_size
    llm = Llama(LlamaSize.from_dict({**SIZE, "vocab_size": vocab}))
    torch.nn.init.normal_(llm.model.embed_tokens.weight, std=WIDTH**-0.5)
    return llm


@pytest.fixture(scope="module")
def encoder() -> EfficientNetEncoder:
    torch.manual_seed(4)
    return EfficientNetEncoder(EfficientNetConfig(16 * CELLS)).eval().requires_grad_(requires_grad=False)


@pytest.fixture
def adapter() -> ConvTSelectorAdapter:
    torch.manual_seed(1)
    config = AdapterConfig(
        "conv_t_selector", CELLS**2, KEPT, EfficientNetEncoder.WIDTH, neck=16, out_features=TOKEN_WIDTH
    )
    return ConvTSelectorAdapter(config)


@pytest.fixture
def reading() -> ReadingTokens:
    torch.manual_seed(2)
    return ReadingTokens(CELLS, 4, TOKEN_WIDTH, WIDTH)


@pytest.fixture
def objects() -> FrameObjects:
    """Two frames; in the second, the third object cannot be asked for."""
    names = torch.full((2, 4), NOTHING)
    names[0, :2], names[1, :3] = torch.tensor([0, 1]), torch.tensor([2, 0, 1])
    boxes = torch.zeros(2, 4, 4)
    boxes[0, :2] = torch.tensor([[0.05, 0.1, 0.45, 0.8], [0.5, 0.5, 0.95, 0.9]])
    boxes[1, :3] = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.55, 0.0, 0.95, 0.4], [0.5, 0.5, 1.0, 1.0]])
    usable = names != NOTHING
    usable[1, 2] = False
    return FrameObjects(names, boxes, usable)


@pytest.fixture
def frames(objects) -> FrameFeatures:
    torch.manual_seed(3)
    shared = torch.randn(2, EfficientNetEncoder.SHARED_WIDTH, CELLS, CELLS).half()
    return FrameFeatures(shared, objects.names, objects.boxes, objects.is_usable)


def truth_of(objects: FrameObjects):
    return assign_cells(objects, cell_centers(CELLS, torch.device("cpu")))


class TestCells:
    def test_the_truth_costs_nothing(self, objects):
        truth = truth_of(objects)
        gate = torch.where(truth.is_peak, 12.0, -12.0)
        named = F.one_hot(truth.names, len(NAMES)).bool() & truth.is_on[..., None]
        losses = cell_losses(gate, torch.where(named, 12.0, -12.0), truth.boxes, truth)
        assert float(cell_total(losses)) < 1e-3
        assert float(losses["cell_named"].value) == 1
        assert float(losses["cell_iou"].value) == pytest.approx(1)

    @pytest.mark.parametrize("wrong", ["gate", "names", "boxes"])
    def test_each_head_is_told_what_is_wrong_and_where(self, objects, wrong):
        truth = truth_of(objects)
        heads = {
            "gate": torch.zeros(2, CELLS**2, requires_grad=True),
            "names": torch.zeros(2, CELLS**2, len(NAMES), requires_grad=True),
            "boxes": torch.tensor([0.1, 0.1, 0.9, 0.9]).repeat(2, CELLS**2, 1).requires_grad_(),
        }
        losses = cell_losses(heads["gate"], heads["names"], heads["boxes"], truth)
        cell_total(losses).backward()
        reached = heads[wrong].grad.flatten(2).abs().amax(-1) > 0 if wrong != "gate" else heads[wrong].grad != 0
        expected = {
            # Around its innermost cells, an object's own cells count neither way.
            "gate": ~truth.is_ignored & ~(truth.is_on & ~truth.is_peak),
            "names": ~truth.is_ignored,
            "boxes": truth.is_on,
        }
        assert truth.is_ignored.any()
        assert torch.equal(reached, expected[wrong])

    def test_large_objects_do_not_drown_small_ones(self, objects):
        truth = truth_of(objects)
        names = torch.zeros(2, CELLS**2, len(NAMES), requires_grad=True)
        cell_losses(torch.zeros(2, CELLS**2), names, truth.boxes, truth)["cell_name"].value.backward()
        on = truth.is_on[0]
        share = names.grad[0].abs().sum(-1)
        each = [share[on & (truth.owner[0] == owner)] for owner in (0, 1)]
        assert len(each[0]) > len(each[1])
        assert float(each[0].sum() / each[1].sum()) == pytest.approx((len(each[0]) / len(each[1])) ** 0.5, rel=1e-4)


class TestSelector:
    def test_training_sees_the_tokens_that_the_model_keeps(self, parts, encoder, adapter, frames):
        parts.eval()
        seen = parts.seen(encoder, adapter.eval(), frames)
        kept, index, logits = adapter(encoder.frame_tokens(frames.shared.float()))
        assert torch.equal(seen.kept, kept)
        assert torch.equal(seen.index, index)
        assert torch.equal(seen.gate, logits)

    def test_in_training_some_channels_are_left_out(self, parts, encoder, adapter, frames):
        parts.eval()
        assert torch.equal(parts.seen(encoder, adapter, frames).every, parts.seen(encoder, adapter, frames).every)
        parts.train()
        assert not torch.equal(parts.seen(encoder, adapter, frames).every, parts.seen(encoder, adapter, frames).every)

    def test_wanted_tokens_tell_the_truth_on_objects(self, parts, encoder, adapter, reading, frames):
        parts.eval()
        seen = parts.seen(encoder, adapter, frames)
        seen = type(seen)(**{name: getattr(seen, name) for name in seen.__slots__} | {"index": frames_index(seen)})
        wanted, on = parts.wanted(reading, seen)
        assert not wanted.requires_grad
        assert torch.equal(on, seen.truth.is_on.gather(1, seen.index))
        assert on.any()
        row, place = (int(part) for part in on.nonzero()[0])
        cell = seen.index[row, place]
        chances = 0.9 * F.one_hot(seen.truth.names[row, cell], len(NAMES))
        told = parts.told(
            reading,
            seen.gate[row, cell].reshape(1, 1),
            seen.truth.boxes[row, cell].reshape(1, 1, 4),
            chances.reshape(1, 1, -1),
            cell.reshape(1, 1),
        )
        torch.testing.assert_close(wanted[row, place], told[0, 0])


def frames_index(seen) -> torch.Tensor:
    """Cells of which some are on objects, ascending."""
    best = seen.truth.is_on.float().topk(KEPT, 1).indices
    return best.sort(1).values


QUESTIONS = [
    [FrameQuestion(0, 0, "the mug"), FrameQuestion(1, 1, "the apple"), FrameQuestion(2, ABSENT, "the teddy bear")],
    [FrameQuestion(0, 1, "the mug"), FrameQuestion(2, 0, box=torch.tensor([0.0, 0.0, 0.5, 0.5]).numpy())],
]


class TestWords:
    @pytest.fixture
    def told(self, parts, reading, objects):
        """Tokens (2, KEPT, D) that tell the truth, and their cells."""
        truth = truth_of(objects)
        index = truth.is_on.float().topk(KEPT, 1).indices.sort(1).values
        on = truth.is_on.gather(1, index)
        chances = F.one_hot(truth.names.gather(1, index), len(NAMES)) * on[..., None].float()
        boxes = truth.boxes.gather(1, index[..., None].expand(-1, -1, 4))
        return lambda: parts.told(reading, torch.where(on, 2.0, -4.0), boxes, chances, index), index, truth

    def test_all_losses_fall_on_one_batch(self, parts, llm, reading, objects, told):
        tokens, index, truth = told
        optimizer = torch.optim.Adam([*llm.parameters(), *parts.parameters(), *reading.parameters()], 3e-3)
        found = []
        for _ in range(50):
            torch.manual_seed(0)
            losses = parts._losses(llm, tokens(), index, CELLS, objects, QUESTIONS, truth)
            optimizer.zero_grad()
            losses["word_total"].value.backward()
            optimizer.step()
            found.append({name: float(loss.value.detach()) for name, loss in losses.items()})
        first, last = found[0], found[-1]
        for name, share in {"word_total": 0.5, "word_there": 0.5, "word_first": 0.5, "word_name": 0.2}.items():
            assert last[name] < share * first[name], name
        assert last["word_name_accuracy"] == last["word_pointing_accuracy"] == 1
        assert last["word_fetch"] > max(0.5, first["word_fetch"])
        assert last["word_look"] > max(0.5, first["word_look"])

    def test_names_and_readout_count_by_their_weights(self, parts, llm, objects, told):
        tokens, index, truth = told

        def losses_with(weights):
            losses = WordLosses(parts.prompts, parts.word_heads, weights)
            found = losses(llm, tokens(), index, CELLS, objects, QUESTIONS, truth)
            return {name: float(loss.value.detach()) for name, loss in found.items()}

        torch.manual_seed(0)
        none = losses_with(WordWeights(name=0.0, readout=0.0))
        torch.manual_seed(0)
        named = losses_with(WordWeights(name=2.0, readout=0.0))
        assert named["word_total"] - none["word_total"] == pytest.approx(2 * none["word_name"], rel=1e-4)
        torch.manual_seed(0)
        read = losses_with(WordWeights(name=0.0, readout=0.5))
        _, readout = parts._losses.readout(llm, tokens(), index, truth)
        assert read["word_total"] - none["word_total"] == pytest.approx(0.5 * float(readout.detach()), rel=1e-3)

    def test_the_losses_reach_all_that_they_teach(self, parts, llm, reading, objects, told):
        tokens, index, truth = told
        visual = tokens().detach().requires_grad_()
        losses = parts._losses(llm, visual, index, CELLS, objects, QUESTIONS, truth)
        assert {name for name, loss in losses.items() if loss.total.requires_grad} == {"word_total"}
        losses["word_total"].value.backward()
        without = {name for name, weight in llm.named_parameters() if weight.grad is None}
        assert without == set()
        assert all(weight.grad is not None for weight in parts.word_heads.parameters())
        assert (visual.grad.abs().amax(-1) > 0).all()

    def test_a_batch_without_anything_to_be_found_has_a_finite_loss(self, parts, llm, objects, told):
        tokens, index, _ = told
        nothing = FrameObjects(torch.full((2, 4), NOTHING), torch.zeros(2, 4, 4), torch.zeros(2, 4, dtype=torch.bool))
        for questions in ([QUESTIONS[0][2:]] * 2, [[], []]):
            losses = parts._losses(llm, tokens(), index, CELLS, nothing, questions, truth_of(nothing))
            assert torch.isfinite(losses["word_total"].value)
            losses["word_total"].value.backward()
            assert all(torch.isfinite(w.grad).all() for w in llm.parameters() if w.grad is not None)
            assert float(losses["word_look"].weight) == float(losses["word_there"].weight) == 0

    def test_a_token_is_read_out_as_the_nearest_name(self, parts, llm, told):
        _, index, truth = told
        words = llm.embed(parts.prompts.name_ids).detach()
        visual = words[truth.names.gather(1, index)] * 3
        losses, near = parts._losses.readout(llm, visual, index, truth)
        _, far = parts._losses.readout(llm, visual.flip(-1), index, truth)
        assert float(losses["word_readout"].value) == 1
        assert near < far

    def test_made_up_readings_are_told_with_noise_to_the_cells_of_the_highest_gate(self, parts, reading):
        batch = FrameReadingSource(CELLS, len(NAMES)).features(0, 0, 2)
        torch.manual_seed(0)
        visual, index = parts.told_of_readings(reading, batch, KEPT)
        assert visual.shape == (2, KEPT, WIDTH)
        lowest = batch.gate.gather(1, index).amin(1)
        left_out = batch.gate.scatter(1, index, float("-inf")).amax(1)
        assert (lowest >= left_out).all()
        assert not torch.equal(visual, parts.told_of_readings(reading, batch, KEPT)[0])

    def test_questions_are_drawn_anew_in_each_step(self, parts, llm, objects, told):
        tokens, index, truth = told
        asked = []
        parts._losses = lambda *given: asked.append(given[5]) or {}
        for seed in (0, 0, 1):
            torch.manual_seed(seed)
            parts.answers(llm, tokens(), index, objects, truth)
        texts = [[[parts.prompts.question(one) for one in frame] for frame in batch] for batch in asked]
        assert texts[0] == texts[1] != texts[2]
        assert [len(frame) for frame in texts[0]] == [4, 4]
