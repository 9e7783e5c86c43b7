"""ViT and MAE in PyTorch, as `vit bench` and `mae bench` train them: AdamW, float32 or bfloat16.

vit.py vit:   timm's ViT-Ti for 32 pixels in patches of 4 (64 tokens), pictures of CIFAR-10 at hand, no augmentation.
vit.py mae:   transformers' ViTMAE of the same encoder with a decoder of 4 blocks of width 192, a mask ratio of 0.75, on the same pictures.
vit.py photo: timm's vit_tiny_patch16_224 on photos from files: torchvision's RandomResizedCrop and flip behind a DataLoader of two workers.
Prints one line of JSON. The first step is left out of the speed, as in `bench`. Needs timm 1.0.31 and transformers 5.24.0.
"""

import argparse
import pathlib
from contextlib import nullcontext

import torch
from peer import train
from resnet import resident
from torch import nn
from torch.nn.functional import cross_entropy

SEED = 1


def vit(**sizes):
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(embed_dim=192, depth=12, num_heads=3, num_classes=10, **sizes)


class Mae(nn.Module):
    """Its forward pass gives the loss, since that is what training wants."""

    def __init__(self):
        from transformers import ViTMAEConfig, ViTMAEForPreTraining

        super().__init__()
        encoder = dict(hidden_size=192, num_hidden_layers=12, num_attention_heads=3, intermediate_size=768)
        decoder = dict(decoder_hidden_size=192, decoder_num_hidden_layers=4, decoder_num_attention_heads=3, decoder_intermediate_size=768)
        self.net = ViTMAEForPreTraining(ViTMAEConfig(image_size=32, patch_size=4, norm_pix_loss=True, **encoder, **decoder)).train()

    def forward(self, image):
        return self.net(image).loss


def photos(args):
    from torchvision import datasets, transforms

    transform = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    folder = datasets.ImageFolder(args.data / "train", transform)
    batches = torch.utils.data.DataLoader(folder, args.batch, shuffle=True, num_workers=2, persistent_workers=True, drop_last=True)
    while True:
        yield from batches


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=["vit", "mae", "photo"])
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--steps", type=int, required=True, help="steps to time, after one that warms up")
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    args = parser.parse_args()
    args.layout = "contiguous"

    torch.set_num_threads(2)
    torch.manual_seed(SEED)
    net = {"vit": lambda: vit(img_size=32, patch_size=4), "mae": Mae, "photo": lambda: vit(img_size=224, patch_size=16)}[args.peer]()
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    batches = photos(args) if args.peer == "photo" else resident(args)
    cast = lambda: torch.autocast("cpu", torch.bfloat16) if args.precision == "bf16" else nullcontext()

    def forward(image):
        with cast():
            return net(image)

    loss = (lambda found, label: found) if args.peer == "mae" else lambda found, label: cross_entropy(found.float(), label)
    train(forward, optimizer, batches, args, criterion=loss)


if __name__ == "__main__":
    main()
