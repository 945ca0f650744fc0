"""Stage 1: finds where nodules may be. One forward pass over the whole lung at 1 mm.

Stride 2 from the first convolution on, because a full-resolution layer would cost more than all
others together; a stride-8 branch for context; heads at stride 4.
"""
import torch
from torch import nn


class Block(nn.Module):
    """Two 3x3x3 convolutions with a residual path."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm3d(width)
        self.second = nn.Conv3d(width, width, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm3d(width)

    def forward(self, x):
        y = torch.relu(self.first_norm(self.first(x)))
        return torch.relu(x + self.second_norm(self.second(y)))


class Down(nn.Module):
    """A stride-2 convolution that widens."""

    def __init__(self, width_in, width_out, kernel=3):
        super().__init__()
        self.conv = nn.Conv3d(width_in, width_out, kernel, 2, kernel // 2, bias=False)
        self.norm = nn.BatchNorm3d(width_out)

    def forward(self, x):
        return torch.relu(self.norm(self.conv(x)))


class Detector(nn.Module):
    """image [N,1,D,H,W] -> heatmap [N,1,...], offset [N,3,...], log_diameter [N,1,...] at D/4."""

    def __init__(self, widths=(16, 32, 64)):
        super().__init__()
        a, b, c = widths
        self.stem = nn.Sequential(Down(1, a), Block(a))
        self.quarter = nn.Sequential(Down(a, b), Block(b), Block(b))
        self.eighth = nn.Sequential(Down(b, c), Block(c), Block(c))
        self.narrow = nn.Sequential(nn.Conv3d(c, b, 1, bias=False), nn.BatchNorm3d(b), nn.ReLU())
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.join = nn.Sequential(nn.Conv3d(2 * b, b, 3, padding=1, bias=False),
                                  nn.BatchNorm3d(b), nn.ReLU())
        self.head = nn.Sequential(Block(b))
        self.heatmap = nn.Conv3d(b, 1, 1)
        self.offset = nn.Conv3d(b, 3, 1)
        self.log_diameter = nn.Conv3d(b, 1, 1)
        nn.init.constant_(self.heatmap.bias, -4.6)   # prior of 1 %, or the first steps only unlearn
        nn.init.constant_(self.log_diameter.bias, 2.0)

    def forward(self, image):
        quarter = self.quarter(self.stem(image))
        context = self.up(self.narrow(self.eighth(quarter)))
        x = self.head(self.join(torch.cat([quarter, context], 1)))
        return self.heatmap(x), self.offset(x), self.log_diameter(x)
