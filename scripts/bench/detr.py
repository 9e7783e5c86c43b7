"""transformers' DETR, as `detr bench` trains it, in PyTorch: AdamW, clipping, losses after every layer, each with SciPy's matching.

detr.py resnet50: the published network, conv1 and the first stage frozen.
detr.py small:    the sizes of detr_small, all of it learning, with frozen norms.
Pictures and boxes are at hand. Prints one line of JSON. The first step is left out of the speed, as in `bench`. Needs transformers 5.24.0 and SciPy.
"""

import argparse
import json
import time

import torch

SEED = 1
SIZES = {
    "resnet50": (dict(depths=[3, 4, 6, 3]), dict()),
    "small": (
        dict(depths=[2, 2, 2, 2], hidden_sizes=[64, 128, 256, 512], layer_type="basic"),
        dict(
            d_model=128, encoder_layers=3, decoder_layers=3, num_queries=20, encoder_attention_heads=4, decoder_attention_heads=4,
            encoder_ffn_dim=1024, decoder_ffn_dim=1024,
        ),
    ),
}  # fmt: skip


def network(kind):
    from transformers import DetrConfig, DetrForObjectDetection, ResNetConfig

    trunk, sizes = SIZES[kind]
    # As the authors' code has it: what it drops, and losses after every layer.
    config = DetrConfig(
        use_timm_backbone=False, backbone_config=ResNetConfig(**trunk, out_features=["stage4"]), num_labels=10, auxiliary_loss=True,
        attention_dropout=0.1, activation_dropout=0.1, **sizes,
    )  # fmt: skip
    model = DetrForObjectDetection(config).train()
    # The library freezes all of its own trunk.
    frozen = ("embedder.embedder", "stages.0.") if kind == "resnet50" else ()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not any(part in name for part in frozen))
    return model


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=SIZES)
    parser.add_argument("--edge", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps to time, after one that warms up")
    args = parser.parse_args()

    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    model = network(args.peer)
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, 1e-4, weight_decay=1e-4, fused=True)
    image = torch.randn(args.batch, 3, args.edge, args.edge)
    labels = [dict(class_labels=torch.tensor([1, 2]), boxes=torch.tensor([[0.3, 0.3, 0.2, 0.2], [0.6, 0.7, 0.3, 0.3]])) for _ in range(args.batch)]
    seconds = []
    for _ in range(args.steps + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        model(image, labels=labels).loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 0.1)
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"examples_per_second": args.batch * args.steps / sum(seconds[1:]), "torch": torch.__version__}))


main()
