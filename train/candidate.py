"""Stage 2: looks at one candidate in a 40 mm cube: nodule or not, texture, size, where it looked.

Strided trunk to 5x5x5 tokens, one Top-K sparse attention block, and a head that keeps position: it
must tell a nodule in the centre from one beside it. Dropout sits behind the trunk only, so that a
Monte-Carlo run computes the trunk once (models/README.md).
"""
import math

import torch
from torch import nn

from detector import Block, Down

SIDE, TOKENS = 40, 5
KEEP = 24              # keys that a query attends to


class TopKAttention(nn.Module):
    """Each query attends to its K best keys only. The order of operations is part of the contract."""

    def __init__(self, width, heads, keep):
        super().__init__()
        self.heads, self.depth, self.keep = heads, width // heads, keep
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.scale = 1.0 / math.sqrt(self.depth)

    def split(self, x):
        return x.reshape(-1, TOKENS**3, self.heads, self.depth).transpose(1, 2)

    def forward(self, tokens):
        q, k, v = self.split(self.query(tokens)), self.split(self.key(tokens)), \
            self.split(self.value(tokens))
        scores = torch.matmul(q, k.transpose(2, 3)) * self.scale
        best, _ = torch.topk(scores, self.keep, dim=-1, largest=True, sorted=True)
        least = best.amin(-1, keepdim=True)
        kept = torch.where(scores >= least, scores, torch.tensor(-1e9))
        weights = torch.softmax(kept, -1)                      # [N, heads, query, key]
        mixed = torch.matmul(weights, v).transpose(1, 2).reshape(-1, TOKENS**3, self.heads * self.depth)
        return self.out(mixed), weights.mean(1).mean(1)        # what each token receives


class GatedAttention(TopKAttention):
    """A gate chooses the keys before any score is computed: its K best, less those that lie more than SPAN below the
    best one. All queries see the same keys, which makes every product after the gate as much smaller as there are
    fewer of them. Training lets all K through; that fewer are better on hosts never seen was found afterwards, and SPAN
    chosen by leaving out one host at a time (docs/TRAINING.md)."""

    SPAN = 0.1

    def __init__(self, width, heads, keep):
        super().__init__(width, heads, keep)
        self.gate = nn.Linear(width, 1, bias=False)    # one number for all keys would change nothing
        nn.init.zeros_(self.gate.weight)

    def forward(self, tokens):
        q, k, v = self.split(self.query(tokens)), self.split(self.key(tokens)), \
            self.split(self.value(tokens))
        gate = self.gate(tokens).reshape(-1, 1, 1, TOKENS**3)
        if self.training:
            return self.out(self.gathered(q, k, v, gate[:, 0, 0])), None
        best, _ = torch.topk(gate, self.keep, dim=-1, largest=True, sorted=True)
        least, near = best.amin(-1, keepdim=True), gate.amax(-1, keepdim=True) - self.SPAN
        kept = gate >= torch.where(least >= near, least, near)
        scores = torch.matmul(q, k.transpose(2, 3)) * self.scale + gate
        weights = torch.softmax(torch.where(kept, scores, torch.tensor(-1e9)), -1)
        mixed = torch.matmul(weights, v).transpose(1, 2).reshape(-1, TOKENS**3, self.heads * self.depth)
        return self.out(mixed), weights.mean(1).mean(1)

    def gathered(self, q, k, v, gate):
        """The same from the K best keys alone: what training can afford, of operators that the graph does without."""
        best, index = torch.topk(gate, self.keep, dim=-1)
        index = index[:, None, :, None].expand(-1, self.heads, -1, self.depth)
        weights = torch.softmax(torch.matmul(q, k.gather(2, index).transpose(2, 3)) * self.scale + best[:, None, None], -1)
        return torch.matmul(weights, v.gather(2, index)).transpose(1, 2).reshape(-1, TOKENS**3, self.heads * self.depth)


class Norm(nn.Module):
    """Layer normalisation from its parts: opset 13 has no operator for it."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        variance = centred.pow(2).mean(-1, keepdim=True)
        return centred / torch.sqrt(variance + 1e-5) * self.weight + self.bias


class Density(nn.Module):
    """crop [N,1,40,40,40] -> texture [N,3], of how dense the crop is in its middle and in shells around it, and how evenly.

    Readers call a nodule by its density, and what a trunk that was trained to find nodules keeps of it is too little: a
    linear function of its last layer said "solid" to 18 of 21 ground-glass nodules (docs/TRAINING.md). Mirror images of a
    crop are the same to it."""

    RADII, LOW, HIGH = (1.5, 2.5, 3.5, 5, 7, 10), 10, 30       # mm; voxels of the crop about its middle

    def __init__(self, hidden=32):
        super().__init__()
        self.register_buffer("shells", self.balls())
        self.mean = nn.Linear(len(self.RADII), hidden)
        self.spread = nn.Linear(len(self.RADII), hidden, bias=False)
        self.kind = nn.Linear(hidden, 3)

    @classmethod
    def balls(cls):
        """[shells, voxels]: a product with it is the mean over each shell."""
        axis = torch.arange(cls.LOW, cls.HIGH) - (SIDE - 1) / 2
        away = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).pow(2).sum(0).sqrt().flatten()
        edges = (0.0, *cls.RADII)
        inside = torch.stack([(away > a) & (away <= b) for a, b in zip(edges, edges[1:])]).float()
        return inside / inside.sum(1, keepdim=True)

    def measured(self, crop):
        """Mean and standard deviation over each shell, each [N, shells]. The deviation is that from the innermost shell's mean: from
        0, mean square less squared mean would leave 1e-2 of a logit to rounding."""
        low, high = self.LOW, self.HIGH
        middle = crop[:, :, low:high, low:high, low:high].reshape(-1, (high - low)**3)
        mean = nn.functional.linear(middle, self.shells)
        off, away = mean - mean[:, :1], middle - mean[:, :1]
        return mean, torch.sqrt(torch.relu(nn.functional.linear(away * away, self.shells) - off * off) + 1e-6)

    def said(self, mean, spread):
        return self.kind(torch.relu(self.mean(mean) + self.spread(spread)))

    def forward(self, crop):
        return self.said(*self.measured(crop))


class Candidate(nn.Module):
    """crop [N,1,40,40,40] -> logit [N,1], texture [N,3], log_diameter [N,1], attention [N,1,5,5,5]."""

    def __init__(self, widths=(16, 32, 64), heads=4, keep=KEEP, dropout=0.2, gated=False, dense=False):
        super().__init__()
        a, b, c = widths
        self.trunk = nn.Sequential(Down(1, a), Block(a), Down(a, b), Block(b), Block(b),
                                   Down(b, c), Block(c))
        self.width = c
        self.position = nn.Parameter(torch.randn(1, TOKENS**3, c) * 0.02)
        self.before = Norm(c)
        self.attention = (GatedAttention if gated else TopKAttention)(c, heads, keep)
        self.drop_attention = nn.Dropout(dropout)
        self.after = Norm(c)
        self.squeeze = nn.Linear(c, 8)                         # keeps position: 125 tokens x 8
        self.drop_head = nn.Dropout(dropout)
        self.hidden = nn.Linear(TOKENS**3 * 8, 64)
        self.drop_last = nn.Dropout(dropout)
        self.logit = nn.Linear(64, 1)
        self.texture = nn.Linear(64, 3)          # trains the trunk; where there is a Density, that is what is said
        self.density = Density() if dense else None
        self.log_diameter = nn.Linear(64, 1)
        nn.init.constant_(self.log_diameter.bias, 2.0)

    @staticmethod
    def of(state, dropout=0.2):
        """The network that these weights belong to: with a gate and a Density where they have one."""
        net = Candidate(dropout=dropout, gated="attention.gate.weight" in state, dense="density.shells" in state)
        net.load_state_dict(state)
        return net.eval()

    def forward(self, crop):
        logit, texture, log_diameter, received = self.judge(self.trunk(crop))
        return logit, self.density(crop) if self.density else texture, log_diameter, received

    def judge(self, x):
        """What follows the trunk. x [N, width, 5, 5, 5]."""
        hidden, received = self.look(x)
        if received is not None:
            received = received.reshape(-1, 1, TOKENS, TOKENS, TOKENS)
        return self.logit(hidden), self.texture(hidden), self.log_diameter(hidden), received

    def look(self, x):
        """([N, 64] of which every output is a linear function, what each token receives)."""
        tokens = x.reshape(-1, self.width, TOKENS**3).transpose(1, 2).contiguous() + self.position
        mixed, received = self.attention(self.before(tokens))
        tokens = tokens + self.drop_attention(mixed)
        flat = torch.relu(self.squeeze(self.after(tokens))).flatten(1)
        return self.drop_last(torch.relu(self.hidden(self.drop_head(flat)))), received
