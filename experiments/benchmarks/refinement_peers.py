"""ALEN's refinement and training step in PyTorch; needs the `benchmarks` extra.

Written for speed within its ways: batched by hand, and what does not depend on y is computed once
for all steps of an ascent.
"""

import torch
from torch import nn
from torch.nn import functional


def _dense(num_features, num_labels):
    return nn.Sequential(nn.Linear(num_features, 150), nn.ReLU(), nn.Linear(150, num_labels))


class _LabelValue(nn.Module):
    def __init__(self, num_features, num_labels):
        super().__init__()
        self.features = _dense(num_features, num_labels)
        self.labels, self.last = nn.Linear(num_labels, 16), nn.Linear(16, 1)

    def prepare(self, x):
        """What does not depend on y."""
        return self.features(x)

    def forward(self, unary, y):
        interactions = self.last(functional.softplus(self.labels(y)))[:, 0]
        return torch.sigmoid(torch.sum(unary * y, dim=1) + interactions)


class _Convolutions(nn.Module):
    def __init__(self, num_inputs, channels):
        super().__init__()
        first, second, third = channels
        self.full = nn.Conv2d(num_inputs, first, 5, padding=2)
        self.halved = nn.Conv2d(4 * first, second, 3, padding=1)
        self.quarter = nn.Conv2d(4 * second, third, 3, padding=1)
        self.up1 = nn.ConvTranspose2d(third, second, 4, stride=2, padding=1)
        self.up2 = nn.ConvTranspose2d(2 * second, first, 4, stride=2, padding=1)
        self.last = nn.Conv2d(2 * first, 1, 3, padding=1)

    def forward(self, x):
        whole = functional.relu(self.full(x))
        half = functional.relu(self.halved(functional.pixel_unshuffle(whole, 2)))
        quarter = functional.relu(self.quarter(functional.pixel_unshuffle(half, 2)))
        up = functional.relu(self.up1(quarter))
        up = functional.relu(self.up2(torch.cat([up, half], 1)))
        return self.last(torch.cat([up, whole], 1))[:, 0]


class _MaskValue(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.scores = _Convolutions(4, channels)

    def prepare(self, x):
        return x

    def forward(self, x, y):
        stacked = torch.cat([x, 2 * y[:, None] - 1], 1)
        return torch.sigmoid(torch.mean(self.scores(stacked), dim=(1, 2)))


class Peer:
    """The same networks, sizes and steps as a case of the benchmark."""

    def __init__(self, case):
        images = case.x.ndim == 4
        if images:
            channels = case.config.value.channels
            self._network, self._value = _Convolutions(3, channels), _MaskValue(channels)
        else:
            sizes = case.x.shape[1], case.y.shape[1]
            self._network, self._value = _dense(*sizes), _LabelValue(*sizes)
        self._ascent = case.config.ascent
        x = torch.tensor(case.x.tolist())
        self._x = x.permute(0, 3, 1, 2).contiguous() if images else x
        self._y = torch.tensor(case.y.tolist())
        self._oracle = _iou if case.config.outputs.oracle == "iou" else _f1
        self._optimizers = [
            torch.optim.Adam(module.parameters(), 1e-3, betas=(0.5, 0.999))
            for module in (self._network, self._value)
        ]

    def refine(self):
        """The refined outputs of the batch."""
        with torch.no_grad():
            start = torch.sigmoid(self._network(self._x))
        return self._ascend(start)

    def train_step(self):
        """One step of both networks."""
        with torch.no_grad():
            proposed = torch.sigmoid(self._network(self._x))
        refined = self._ascend(proposed)
        prepared = self._value.prepare(self._x)
        loss = torch.mean((self._value(prepared, self._y) - 1) ** 2)
        for y in (proposed, refined):
            loss = loss + torch.mean((self._value(prepared, y) - self._oracle(y, self._y)) ** 2)
        self._descend(1, 0.5 * loss)
        logits = self._network(self._x)
        value = self._value(self._value.prepare(self._x), torch.sigmoid(logits))
        loss = functional.binary_cross_entropy_with_logits(logits, self._y)
        self._descend(0, loss + 0.5 * torch.mean((value - 1) ** 2))

    def _descend(self, which, loss):
        """One step of one network, whose parameters alone are differentiated by."""
        optimizer = self._optimizers[which]
        parameters = [one for group in optimizer.param_groups for one in group["params"]]
        gradients = torch.autograd.grad(loss, parameters)
        for one, gradient in zip(parameters, gradients, strict=True):
            one.grad = gradient
        optimizer.step()

    def _ascend(self, y):
        with torch.no_grad():
            prepared = self._value.prepare(self._x)
        for _ in range(self._ascent.num_steps):
            y = y.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._value(prepared, y).sum(), y)
            axes = tuple(range(1, y.ndim))
            length = torch.sqrt(torch.sum(gradient**2, dim=axes, keepdim=True))
            y = torch.clamp(
                y + self._ascent.step_size * gradient / torch.clamp(length, min=1e-30), 0, 1
            )
        return y.detach()


def _overlap(y, true):
    axes = tuple(range(1, y.ndim))
    return torch.minimum(y, true).sum(axes), torch.maximum(y, true).sum(axes)


def _f1(y, true):
    both, either = _overlap(y, true)
    return 2 * both / (both + either)


def _iou(y, true):
    both, either = _overlap(y, true)
    return both / either
