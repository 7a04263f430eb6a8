"""``config.json`` of a checkpoint, and of the two models it is built on."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elysium_core.calibration import NameCalibration, ScoreCalibration
from elysium_core.checkpoint.base_settings import KNOWN_BASES, llm_size, read_settings, vision_config
from elysium_core.errors import ModelFileError
from elysium_core.network.crop_config import CropConfig
from elysium_core.network.efficientnet import EfficientNetConfig
from elysium_core.network.model_config import AdapterConfig, ElysiumConfig

PUBLISHED = {
    "model_type": "elysium",
    "llm_config": {"pretrained_model_name_or_path": "lmsys/vicuna-7b-v1.5", "freeze_llm": True},
    "visual_config": {"pretrained_model_name_or_path": "openai/clip-vit-large-patch14-336", "freeze_vit": True},
    "adapter_config": {"in_token_num": 576, "out_token_num": 108, "num_features": 1024, "fix_random": False},
    "projector_config": {"type": "mlp2x_gelu"},
}
LLM = KNOWN_BASES["lmsys/vicuna-7b-v1.5"]
VISION = KNOWN_BASES["openai/clip-vit-large-patch14-336"]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def test_published_config_gives_the_published_model():
    config = ElysiumConfig.from_dict(PUBLISHED)
    assert config.adapter == AdapterConfig("t_selector", 576, 108, 1024, "hard")
    assert (config.feature_layer, config.projector, config.window) == (-2, "mlp2x_gelu", "growing")
    assert config.system_text.startswith("A chat between a curious user")
    assert config.system_text.endswith("questions. ")


def test_own_settings_survive_a_round_trip():
    config = ElysiumConfig(
        "llm",
        "vision",
        AdapterConfig("none", 64, 64, 32, "straight_through"),
        feature_layer=-1,
        system_text="",
        clip_length=4,
        window="anchor",
        vocabulary=("red cup", "dog"),
        find_scores=ScoreCalibration(2.0, 0.5),
        name_scores=NameCalibration(1.5, 0.25, 2.0, names=2),
    )
    assert ElysiumConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_settings_of_crops_survive_a_round_trip():
    config = ElysiumConfig(
        "llm",
        "vision",
        AdapterConfig("conv_t_selector", 256, 85, 432, "straight_through", neck=64, out_features=128),
        crop=CropConfig(live_tokens=24),
        follow="crop",
        find="parts",
    )
    content = json.loads(json.dumps(config.to_dict()))
    assert content["crop_config"]["live_tokens"] == 24
    assert ElysiumConfig.from_dict(content) == config


def test_without_crops_a_model_follows_in_frames():
    config = ElysiumConfig.from_dict(PUBLISHED)
    assert (config.crop, config.follow) == (None, "frame")
    assert "crop_config" not in config.to_dict()
    assert set(config.to_dict()["adapter_config"]) == {"type", "in_token_num", "out_token_num", "num_features", "gate"}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"elysium": {"follow": "crop"}}, "follow 'crop' needs a crop_config; add one or set follow to 'frame'"),
        ({"elysium": {"follow": "both"}}, "follow 'both' is not one of frame, crop"),
        ({"elysium": {"follow": 3}}, "follow = 3, which must be text"),
        ({"elysium": {"find": "everywhere"}}, "config.json: find 'everywhere' is not one of frame, parts"),
        ({"crop_config": {"live_px": 130}}, "config.json: crop_config: live_px = 130 is not a multiple of 16"),
        ({"crop_config": 7}, "config.json: crop_config: it is int, not an object of settings"),
    ],
)
def test_settings_of_crops_that_do_not_fit_are_refused(change, said):
    with pytest.raises(ModelFileError, match=said):
        ElysiumConfig.from_dict(PUBLISHED | change)


def test_the_encoder_for_crops_is_read_and_refused_by_its_settings():
    config = EfficientNetConfig(320, 20.0)
    assert vision_config(config.to_dict()) == config
    assert vision_config({"model_type": "efficientnet_lite0", "image_size": 256}) == EfficientNetConfig()
    for change, said in (
        ({"image_size": 100}, "image_size = 100 is not a multiple of 32"),
        ({"image_size": "big"}, "image_size = 'big' is not a whole number"),
        ({"contrast": None}, "contrast = None is not a number"),
        ({"contrast": 500}, "contrast = 500 is not in 0..127"),
        ({"model_type": "siglip_vision_model"}, "describes a 'siglip_vision_model' vision encoder; supported are clip"),
    ):
        with pytest.raises(ModelFileError, match=f"config.json.*{said}"):
            vision_config(config.to_dict() | change)


@pytest.mark.parametrize("key", ["llm_config", "visual_config", "adapter_config"])
def test_a_missing_part_is_named(key):
    raw = {name: value for name, value in PUBLISHED.items() if name != key}
    with pytest.raises(ModelFileError, match=f"config.json .*'{key}'"):
        ElysiumConfig.from_dict(raw)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("system_text", "x" * 5000),
        ("clip_length", 0),
        ("clip_length", 10**9),
        ("window", "sliding"),
        ("vocabulary", "mug"),
        ("vocabulary", [f"thing {number}" for number in range(10_001)]),
        ("vocabulary", [""]),
        ("vocabulary", ["x" * 101]),
        ("words", ["left\n"]),
        ("name_scores", {"scale": 1.0, "shift": 0.0, "evidence_scale": 1.0, "names": 1}),
        ("name_scores", {"scale": 1.0, "shift": 0.0, "names": 1}),
        ("name_scores", [1.0, 0.0]),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(key, value):
    raw = ElysiumConfig("llm", "vision").to_dict()
    raw["elysium"][key] = value
    with pytest.raises(ModelFileError, match=key if value not in ([""], ["x" * 101], ["left\n"]) else "is no name"):
        ElysiumConfig.from_dict(raw)


def test_another_kind_of_model_is_refused():
    with pytest.raises(ModelFileError, match="'llava'"):
        ElysiumConfig.from_dict(PUBLISHED | {"model_type": "llava"})


@given(key=st.sampled_from([*PUBLISHED, "elysium", "auto_map", "crop_config"]), value=JSON)
def test_any_value_in_any_place_is_read_or_refused(key, value):
    try:
        ElysiumConfig.from_dict(PUBLISHED | {key: value})
    except ModelFileError as error:
        assert error.code in ("MODEL_FILE", "MODEL_UNSAFE")


@given(
    part=st.sampled_from(["llm_config", "visual_config", "adapter_config", "projector_config", "elysium"]),
    key=st.sampled_from(
        ["pretrained_model_name_or_path", "in_token_num", "type", "gate", "clip_length", "vocabulary", "system_text"]
    ),
    value=JSON,
)
def test_any_value_in_any_part_is_read_or_refused(part, key, value):
    try:
        ElysiumConfig.from_dict(PUBLISHED | {part: {**PUBLISHED.get(part, {}), key: value}})
    except ModelFileError as error:
        assert "config.json" in str(error)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000, "\xff\xfe"])
@pytest.mark.parametrize("read", [ElysiumConfig.from_file, read_settings])
def test_what_is_not_json_is_refused_with_the_file(tmp_path, text, read):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ModelFileError, match=str(path)):
        read(path)


@pytest.mark.parametrize("read", [ElysiumConfig.from_file, read_settings])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ModelFileError, match=f"{tmp_path}/config.json"):
        read(tmp_path / "config.json")


def test_sizes_of_the_published_models():
    size, vision = llm_size(LLM), vision_config(VISION)
    assert (size.layers, size.width, size.heads, size.vocab) == (32, 4096, 32, 32000)
    assert (vision.num_hidden_layers, vision.hidden_size, vision.image_size, vision.patch_size) == (24, 1024, 336, 14)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_size": 1025}, "hidden_size = 1025 is not a multiple of num_attention_heads = 16"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000 is not a whole number in 1..512"),
        ({"image_size": 0}, "image_size = 0"),
        ({"patch_size": True}, "patch_size = True"),
        ({"hidden_size": "1024"}, "hidden_size = '1024'"),
        ({"hidden_act": "evil"}, "hidden_act 'evil' is not one of quick_gelu, gelu"),
        ({"layer_norm_eps": "x"}, "layer_norm_eps = 'x'"),
    ],
)
def test_vision_sizes_out_of_range_are_refused(change, reason):
    with pytest.raises(ModelFileError) as caught:
        vision_config({**VISION, **change}, "eyes/config.json")
    assert str(caught.value).startswith(f"eyes/config.json: {reason}")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers = 1000000000"),
        ({"vocab_size": -1}, "vocab_size = -1"),
        ({"num_attention_heads": 0}, "num_attention_heads = 0"),
        ({"vocab_size": None}, "vocab_size = None"),
        ({"num_key_value_heads": 5}, "5 key/value heads"),
        ({"head_dim": 5}, "heads of width 5"),
        ({"model_type": "mistral"}, "'mistral'"),
        ({"attention_bias": True}, "biases"),
        ({"rms_norm_eps": "much"}, "much"),
        ({"rope_scaling": "yes"}, "lacks or misspells"),
    ],
)
def test_llm_sizes_out_of_range_are_refused(change, reason):
    with pytest.raises(ModelFileError, match=reason):
        llm_size({**LLM, **change})


@given(key=st.sampled_from(sorted(VISION)), value=JSON)
def test_any_vision_setting_is_read_or_refused(key, value):
    try:
        vision_config({**VISION, key: value})
    except ModelFileError:
        return
    assert vision_config({**VISION, key: value}).hidden_size >= 1


@given(key=st.sampled_from([*sorted(LLM), "rope_scaling", "rope_parameters", "head_dim"]), value=JSON)
def test_any_llm_setting_is_read_or_refused(key, value):
    try:
        size = llm_size({**LLM, key: value})
    except ModelFileError:
        return
    assert size.layers >= 1


def test_no_other_vision_setting_reaches_transformers():
    """An attention kernel may be the name of a hub repository, which transformers would fetch."""
    config = vision_config({**VISION, "_attn_implementation": "someone/kernel", "dtype": "float64", "auto_map": {}})
    assert config.to_dict() == vision_config(VISION).to_dict()
