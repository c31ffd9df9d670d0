"""Networks of transformers and timm, small and with random weights, under every strategy; without the network."""

from typing import Any

import pytest
import torch
from bilevel.any_model import require_contract
from support.packages import make_torchvision_importable
from support.strategies import EACH
from torch import Tensor, nn

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"),
]

TOKENS = torch.randn(3, 4, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
IMAGES = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


class Bert(nn.Module):
    """A tiny BERT on vectors in the place of embedded words."""

    def __init__(self, transformers: Any, recomputes: bool) -> None:
        super().__init__()
        options = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 12}
        without_draws = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
        config = transformers.BertConfig(
            vocab_size=5,
            max_position_embeddings=6,
            num_labels=2,
            attn_implementation="eager",
            **options,
            **without_draws,
        )
        self.bert = transformers.BertForSequenceClassification(config)
        self.bert.bert.embeddings.word_embeddings.requires_grad_(False)
        if recomputes:
            self.bert.gradient_checkpointing_enable({"use_reentrant": False})
            self.bert.disable_input_require_grads()  # a hook, for embeddings that are frozen

    def forward(self, x: Tensor) -> Tensor:
        return self.bert(inputs_embeds=x).logits


@pytest.mark.parametrize("recomputes", [False, True])
@pytest.mark.parametrize("strategy", EACH)
def test_bert_of_transformers(strategy: str, recomputes: bool) -> None:
    make_torchvision_importable()
    transformers = pytest.importorskip("transformers")

    def make() -> nn.Module:
        torch.manual_seed(0)
        return Bert(transformers, recomputes).double()

    require_contract(make, TOKENS, strategy)


@pytest.mark.parametrize("network", ["vit", "vit, recomputed", "convnext"])
@pytest.mark.parametrize("strategy", EACH)
def test_networks_of_timm(strategy: str, network: str) -> None:
    make_torchvision_importable()
    timm = pytest.importorskip("timm")

    def vit() -> nn.Module:
        made = timm.models.VisionTransformer(64, 32, num_classes=2, embed_dim=8, depth=2, num_heads=2)
        for block in made.blocks:
            block.attn.fused_attn = False
        made.set_grad_checkpointing(network == "vit, recomputed")
        return made

    def convnext() -> nn.Module:
        return timm.models.ConvNeXt(num_classes=2, depths=(1, 1, 1, 1), dims=(8, 8, 16, 16), ls_init_value=0.5)

    def make() -> nn.Module:
        torch.manual_seed(0)
        return (convnext() if network == "convnext" else vit()).double()

    require_contract(make, IMAGES, strategy, 1e-6 if network == "convnext" else 1e-5)
