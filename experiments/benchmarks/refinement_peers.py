"""ALEN's refinement and training step in PyTorch; needs the `benchmarks` extra.

Written for speed within its ways: batched by hand, and what does not depend on y is computed once
for all steps of an ascent. The parameters are ours, so that both find the same outputs.
"""

import numpy as np
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
    """The same networks, sizes and steps as a case of the benchmark, with a state's parameters."""

    def __init__(self, case, state):
        images = case.x.ndim == 4
        network, value = state.network["params"], state.value["params"]
        if images:
            channels = case.config.value.channels
            self._network, self._value = _Convolutions(3, channels), _MaskValue(channels)
            _load_convolutions(self._network, network["FullyConvolutional_0"])
            _load_convolutions(self._value.scores, value["FullyConvolutional_0"])
        else:
            sizes = case.x.shape[1], case.y.shape[1]
            self._network, self._value = _dense(*sizes), _LabelValue(*sizes)
            _load(self._network[0], network["Dense_0"])
            _load(self._network[2], network["Dense_1"])
            _load(self._value.features[0], value["layers_0"])
            _load(self._value.features[2], value["unary"])
            _load(self._value.labels, value["interactions"])
            _load(self._value.last, value["last"])
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


def _load_convolutions(module, layers):
    _load(module.full, layers["Conv_0"])
    _load(module.halved, layers["Conv_1"], halved=True)
    _load(module.quarter, layers["Conv_2"], halved=True)
    _load_deconvolution(module.up1, layers["Deconvolution_0"]["Dense_0"])
    _load_deconvolution(module.up2, layers["Deconvolution_1"]["Dense_0"])
    _load(module.last, layers["Conv_3"])


def _load(module, layer, *, halved=False):
    """A dense layer's parameters, or a convolution's, perhaps of a halved image."""
    kernel = np.asarray(layer["kernel"])
    if halved:  # PyTorch orders such inputs by channel, then by pixel
        height, width, num_inputs, num_outputs = kernel.shape
        kernel = kernel.reshape(height, width, 4, num_inputs // 4, num_outputs).swapaxes(2, 3)
        kernel = kernel.reshape(height, width, num_inputs, num_outputs)
    _copy(module.weight, np.moveaxis(kernel, (-1, -2), (0, 1)))
    _copy(module.bias, layer["bias"])


def _load_deconvolution(module, layer):
    """Those of a transposed convolution; ours is a matrix of the 2x2 pixels in, and out."""
    kernel = np.asarray(layer["kernel"])
    num_inputs, num_outputs = (size // 4 for size in kernel.shape)
    kernel = kernel.reshape(2, 2, num_inputs, 2, 2, num_outputs)
    weight = np.zeros((num_inputs, num_outputs, 4, 4), np.float32)
    for down, right, below, beside in np.ndindex(2, 2, 2, 2):
        row, column = 3 - below - 2 * down, 3 - beside - 2 * right
        weight[:, :, row, column] = kernel[down, right, :, below, beside]
    _copy(module.weight, weight)
    biases = np.asarray(layer["bias"]).reshape(4, num_outputs)
    _copy(module.bias, biases[0])  # zero, all four, before training


def _copy(parameter, value):
    with torch.no_grad():
        parameter.copy_(torch.tensor(np.asarray(value)))


def _overlap(y, true):
    axes = tuple(range(1, y.ndim))
    return torch.minimum(y, true).sum(axes), torch.maximum(y, true).sum(axes)


def _f1(y, true):
    both, either = _overlap(y, true)
    return 2 * both / (both + either)


def _iou(y, true):
    both, either = _overlap(y, true)
    return both / either
