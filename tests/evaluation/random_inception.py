"""Inception with random weights, in a file like the published one, and torch-fidelity's own network with them."""

import io
from pathlib import Path

import torch
from torch import nn
from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3


class Untrained(FeatureExtractorInceptionV3):
    """The shapes, before any weights are loaded."""

    def load_state_dict(self, state_dict, strict=True, assign=False):
        pass


def save_random_weights(path: Path) -> Path:
    """Write a file of the published format: a plain dictionary of 472 tensors, without num_batches_tracked."""
    empty = io.BytesIO()
    torch.save({}, empty)
    empty.seek(0)
    network = Untrained("untrained", ["2048"], feature_extractor_weights_path=empty)
    draws = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            fan_in = module.weight[0].numel()
            module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=draws)
        if isinstance(module, nn.Linear):
            module.bias.normal_(0, 1, generator=draws)
        if isinstance(module, nn.BatchNorm2d):
            module.weight.uniform_(0.8, 1.2, generator=draws)
            module.bias.uniform_(-0.2, 0.2, generator=draws)
            module.running_mean.uniform_(-0.2, 0.2, generator=draws)
            module.running_var.uniform_(0.8, 1.2, generator=draws)
    weights = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    torch.save(weights, path)
    return path


def torch_fidelitys(path: Path) -> FeatureExtractorInceptionV3:
    """torch-fidelity's own extractor with these weights: images -> (pool, logits without bias)."""
    return FeatureExtractorInceptionV3("own", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path))
