"""Loading of models of the Elysium family: network, tokenizer, vision backend, decoder."""

from __future__ import annotations

from elysium_core.checkpoint.checkpoint import Checkpoint
from elysium_core.checkpoint.quantization import check_quantization, count_parameters, load_quantized, precision_of
from elysium_core.checkpoint.weight_files import fingerprint
from elysium_core.device import check_gpu, device_name, resolve_device, resolve_dtype
from elysium_core.engine.recorded_decoder import build_decoder
from elysium_core.families.elysium import ElysiumFamily
from elysium_core.families.loaders import LoadedModel
from elysium_core.prompt.tokenizer import TextTokenizer
from elysium_core.settings import LoadOptions
from elysium_core.types import ModelInfo
from elysium_core.vision.vision_choice import build_vision, check_backend


def load_elysium(options: LoadOptions) -> LoadedModel:
    """Load a checkpoint of the published layout from the disk.

    Raises:
        ModelFileError: The checkpoint is missing, damaged or unsafe.
        BackendError: Device, dtype, quantisation or backend cannot be used on this machine.
    """
    device = resolve_device(options.device)
    check_gpu(device)
    dtype = resolve_dtype(options.dtype, device)
    check_backend(options.vision_backend, device)
    check_quantization(options.quantization, device, dtype)
    checkpoint = load_quantized(
        options.model, options.quantization, device, dtype, allow_pickle_weights=options.allow_pickle_weights
    )
    return from_checkpoint(checkpoint, options)


def from_checkpoint(checkpoint: Checkpoint, options: LoadOptions) -> LoadedModel:
    """Make a model from a checkpoint in memory; see :meth:`elysium_core.api.Elysium.from_checkpoint`."""
    network = checkpoint.network.eval()
    tokenizer = TextTokenizer.from_folder(checkpoint.llm_folder)
    tokenizer.check_fits(network.llm.size.vocab)
    vision = build_vision(
        options.vision_backend,
        network,
        checkpoint.folder,
        fast_resize=options.fast_resize,
        cuda_graphs=options.cuda_graphs,
    )
    decoder = build_decoder(network.llm, cuda_graphs=options.cuda_graphs)
    family = ElysiumFamily(network, tokenizer, vision, decoder)
    info = ModelInfo(
        name=checkpoint.name,
        backend=vision.name,
        device=device_name(family.device),
        precision=precision_of(network.llm),
        coordinate_levels=family.grammar.levels,
        clip_length=network.config.clip_length,
        parameters=count_parameters(network),
        weights=fingerprint({tensor.file for tensor in checkpoint.stored.values()}),
        describes=network.config.describe,
    )
    return LoadedModel(family, info, checkpoint)
