"""Tiny random detectors whose heads compute what the heads of NanoDet, YOLOX and YOLOv6 export, step by step.

Written after RangiLyu/nanodet (`_forward_onnx` of gfl_head.py, nanodet_head.py and nanodet_plus_head.py),
Megvii-BaseDetection/YOLOX (yolo_head.py) and meituan/YOLOv6 (effidehead.py, its first and its later form).
"""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.detect.tiny_yolo import picture

CLASSES = 3
BINS = 8  # reg_max + 1
WIDTH = 12


class Unit(nn.Module):
    """Convolution, batch normalisation, activation (YOLOX's SiLU as its exporter writes it)."""

    def __init__(self, taken: int, given: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(taken, given, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(given)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return x * torch.sigmoid(x)


class Depthwise(nn.Module):
    """`DepthwiseConvModule`."""

    def __init__(self, taken: int, given: int, kernel: int) -> None:
        super().__init__()
        self.depthwise = Unit(taken, taken, kernel, groups=taken)
        self.pointwise = Unit(taken, given, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.depthwise(x))


class Pyramid(nn.Module):
    """Focus, convolutions, pooling, a top-down path by resizing, a further level: strides 8, 16, 32, 64."""

    def __init__(self, levels: int = 3, mode: str = "nearest") -> None:
        super().__init__()
        self.stem = nn.Sequential(Unit(12, 8), Unit(8, WIDTH, stride=2))
        self.down = nn.ModuleList([Unit(WIDTH, WIDTH, stride=2) for _ in range(levels)])
        self.merge = nn.ModuleList([Unit(2 * WIDTH, WIDTH, 1) for _ in range(2)])
        self.mode = mode

    def forward(self, x: Tensor) -> list[Tensor]:
        corners = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]  # YOLOX's Focus
        x = self.stem(torch.cat(corners, 1))
        maps = []
        for down in self.down:
            x = down(x)
            maps.append(x)
        maps[2] = maps[2] + F.max_pool2d(maps[2], 5, 1, 2)
        for fine, merge in ((1, self.merge[0]), (0, self.merge[1])):
            settings = {} if self.mode == "nearest" else {"align_corners": False}
            above = F.interpolate(maps[fine + 1], scale_factor=2, mode=self.mode, **settings)
            maps[fine] = merge(torch.cat([above, maps[fine]], 1))
        return maps


class NanodetHead(nn.Module):
    """`NanoDetHead` and, with `plus`, `NanoDetPlusHead`: (B, A, K + 4 bins)."""

    def __init__(self, levels: int, *, plus: bool = False, shared: bool = True, kernel: int = 0) -> None:
        super().__init__()
        kernel = kernel or (5 if plus else 3)

        def tower() -> nn.Sequential:
            return nn.Sequential(*[Depthwise(WIDTH, WIDTH, kernel) for _ in range(2)])

        self.shared = shared
        both = CLASSES + 4 * BINS if shared else CLASSES
        self.cls_convs = nn.ModuleList([tower() for _ in range(levels)])
        self.reg_convs = nn.ModuleList([nn.Sequential() if shared else tower() for _ in range(levels)])
        self.gfl_cls = nn.ModuleList([nn.Conv2d(WIDTH, both, 1) for _ in range(levels)])
        self.gfl_reg = nn.ModuleList([nn.Conv2d(WIDTH, 4 * BINS, 1) for _ in range(levels)])

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        outputs = []
        layers = zip(feats, self.cls_convs, self.reg_convs, self.gfl_cls, self.gfl_reg, strict=True)
        for feat, cls_convs, reg_convs, gfl_cls, gfl_reg in layers:
            output = gfl_cls(cls_convs(feat))
            if self.shared:
                cls_pred, reg_pred = output.split([CLASSES, 4 * BINS], dim=1)
            else:
                cls_pred, reg_pred = output, gfl_reg(reg_convs(feat))
            out = torch.cat([cls_pred.sigmoid(), reg_pred], dim=1)
            outputs.append(out.flatten(start_dim=2))
        return torch.cat(outputs, dim=2).permute(0, 2, 1)


class GflHead(nn.Module):
    """`GFLHead`: one head for all levels, a scale for each: (B, A, K + 4 bins)."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.cls_convs = nn.Sequential(Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH))
        self.reg_convs = nn.Sequential(Unit(WIDTH, WIDTH), Unit(WIDTH, WIDTH))
        self.gfl_cls = nn.Conv2d(WIDTH, CLASSES, 3, padding=1)
        self.gfl_reg = nn.Conv2d(WIDTH, 4 * BINS, 3, padding=1)
        self.scales = nn.ParameterList([torch.tensor(0.8 + 0.2 * level) for level in range(levels)])

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        outputs = []
        for x, scale in zip(feats, self.scales, strict=True):
            cls_pred = self.gfl_cls(self.cls_convs(x)).sigmoid()
            reg_pred = self.gfl_reg(self.reg_convs(x)) * scale
            outputs.append(torch.cat([cls_pred, reg_pred], dim=1).flatten(start_dim=2))
        return torch.cat(outputs, dim=2).permute(0, 2, 1)


class Decoupled(nn.Module):
    """The branches of YOLOX and of YOLOv6's first release: per level box, objectness and classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stems = nn.ModuleList([Unit(WIDTH, WIDTH, 1) for _ in range(3)])
        self.cls_convs = nn.ModuleList([Unit(WIDTH, WIDTH) for _ in range(3)])
        self.reg_convs = nn.ModuleList([Unit(WIDTH, WIDTH) for _ in range(3)])
        self.cls_preds = nn.ModuleList([nn.Conv2d(WIDTH, CLASSES, 1) for _ in range(3)])
        self.reg_preds = nn.ModuleList([nn.Conv2d(WIDTH, 4, 1) for _ in range(3)])
        self.obj_preds = nn.ModuleList([nn.Conv2d(WIDTH, 1, 1) for _ in range(3)])

    def maps(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Per level (B, 5 + K, h, w)."""
        found = []
        for k, feat in enumerate(feats):
            x = self.stems[k](feat)
            cls_output = self.cls_preds[k](self.cls_convs[k](x))
            reg_feat = self.reg_convs[k](x)
            reg_output, obj_output = self.reg_preds[k](reg_feat), self.obj_preds[k](reg_feat)
            found.append(torch.cat([reg_output, obj_output.sigmoid(), cls_output.sigmoid()], 1))
        return found


class YoloxHead(Decoupled):
    """`YOLOXHead` in inference: `decode` "" (raw), "cat" (today) or "in place" (its first releases)."""

    def __init__(self, decode: str = "") -> None:
        super().__init__()
        self.decode = decode

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        maps = self.maps(feats)
        outputs = torch.cat([x.flatten(start_dim=2) for x in maps], dim=2).permute(0, 2, 1)
        if not self.decode:
            return outputs
        grids, strides = [], []
        for (hsize, wsize), stride in zip([x.shape[-2:] for x in maps], (8, 16, 32), strict=True):
            yv, xv = torch.meshgrid([torch.arange(hsize), torch.arange(wsize)], indexing="ij")
            grid = torch.stack((xv, yv), 2).view(1, -1, 2)
            grids.append(grid)
            strides.append(torch.full((*grid.shape[:2], 1), stride))
        grids = torch.cat(grids, dim=1).type(outputs.dtype)
        strides = torch.cat(strides, dim=1).type(outputs.dtype)
        if self.decode == "in place":
            outputs[..., :2] = (outputs[..., :2] + grids) * strides
            outputs[..., 2:4] = torch.exp(outputs[..., 2:4]) * strides
            return outputs
        return torch.cat(
            [
                (outputs[..., 0:2] + grids) * strides,
                torch.exp(outputs[..., 2:4]) * strides,
                outputs[..., 4:],
            ],
            dim=-1,
        )


class FirstYolov6Head(Decoupled):
    """`Detect` of YOLOv6 0.1, not in place: exponentials, each level decoded before they are joined."""

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        z = []
        for y, stride in zip(self.maps(feats), (8, 16, 32), strict=True):
            bs, _, ny, nx = y.shape
            y = y.view(bs, 1, 5 + CLASSES, ny, nx).permute(0, 1, 3, 4, 2).contiguous()
            yv, xv = torch.meshgrid([torch.arange(ny), torch.arange(nx)], indexing="ij")
            grid = torch.stack((xv, yv), 2).view(1, 1, ny, nx, 2).float()
            xy = (y[..., 0:2] + grid) * stride
            wh = torch.exp(y[..., 2:4]) * stride
            z.append(torch.cat((xy, wh, y[..., 4:]), -1).view(bs, -1, 5 + CLASSES))
        return torch.cat(z, 1)


class Yolov6Head(nn.Module):
    """`Detect` of YOLOv6 from 0.2 on: distances from the middle of a cell, with `use_dfl` as distributions;
    objectness is 1."""

    def __init__(self, *, use_dfl: bool) -> None:
        super().__init__()
        self.use_dfl = use_dfl
        sides = 4 * BINS if use_dfl else 4
        self.stems = nn.ModuleList([Unit(WIDTH, WIDTH, 1) for _ in range(3)])
        self.cls_preds = nn.ModuleList([nn.Conv2d(WIDTH, CLASSES, 1) for _ in range(3)])
        self.reg_preds = nn.ModuleList([nn.Conv2d(WIDTH, sides, 1) for _ in range(3)])
        self.proj_conv = nn.Conv2d(BINS, 1, 1, bias=False)
        self.proj_conv.weight.data = torch.arange(float(BINS)).view(1, BINS, 1, 1)

    def forward(self, feats: Sequence[Tensor]) -> Tensor:
        cls_score_list, reg_dist_list, points, strides = [], [], [], []
        for k, stride in enumerate((8, 16, 32)):
            b, _, h, w = feats[k].shape
            x = self.stems[k](feats[k])
            cls_output, reg_output = self.cls_preds[k](x), self.reg_preds[k](x)
            if self.use_dfl:
                reg_output = reg_output.reshape([-1, 4, BINS, h * w]).permute(0, 2, 1, 3)
                reg_output = self.proj_conv(F.softmax(reg_output, dim=1))
            cls_score_list.append(torch.sigmoid(cls_output).reshape([b, CLASSES, h * w]))
            reg_dist_list.append(reg_output.reshape([b, 4, h * w]))
            yv, xv = torch.meshgrid([torch.arange(h) + 0.5, torch.arange(w) + 0.5], indexing="ij")
            points.append(torch.stack([xv, yv], -1).reshape(-1, 2))
            strides.append(torch.full((h * w, 1), float(stride)))
        classes = torch.cat(cls_score_list, axis=-1).permute(0, 2, 1)
        lt, rb = torch.cat(reg_dist_list, axis=-1).permute(0, 2, 1).split(2, -1)
        x1y1, x2y2 = torch.cat(points) - lt, torch.cat(points) + rb
        boxes = torch.cat([(x1y1 + x2y2) / 2, x2y2 - x1y1], -1) * torch.cat(strides)
        return torch.cat([boxes, torch.ones((b, boxes.shape[1], 1)), classes], axis=-1)


class Detector(nn.Module):
    """A pyramid and a head, random, with scores that are spread out on inputs (B, 3, h, w) of `darkest` to
    `brightest`; `mode`: how the pyramid resizes."""

    def __init__(
        self,
        head: nn.Module,
        levels: int = 3,
        *,
        darkest: float = 0,
        brightest: float = 1,
        mode: str = "nearest",
    ) -> None:
        super().__init__()
        self.pyramid, self.head = Pyramid(levels, mode), head
        draw = torch.Generator().manual_seed(1)
        for name, parameter in self.named_parameters():
            if parameter.ndim == 4 and "proj_conv" not in name:
                last = "preds" in name or "gfl" in name
                wide = (0.8 if last else 1.5) / parameter[0].numel() ** 0.5
                parameter.data = torch.randn(parameter.shape, generator=draw) * wide
            elif parameter.ndim == 1 and "norm" not in name:
                parameter.data = torch.randn(parameter.shape, generator=draw) * 0.2
        self.eval().requires_grad_(False)
        seen = np.stack([picture(128, 192, seed) for seed in range(4)]).transpose(0, 3, 1, 2)
        pictures = torch.from_numpy(seen).float() / 255 * (brightest - darkest) + darkest
        norms = [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.train().momentum = 1.0
        self(pictures)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pyramid(x))


def nanodet(head: nn.Module, levels: int = 3) -> Detector:
    """A network that takes what NanoDet takes, resized as its necks do."""
    return Detector(head, levels, darkest=-2, brightest=2.4, mode="bilinear")


def yolov6(*, use_dfl: bool) -> Detector:
    """YOLOv6 from 0.2 on, with boxes of a positive size."""
    network = Detector(Yolov6Head(use_dfl=use_dfl))
    for conv in network.head.reg_preds:
        conv.bias += 5
    return network


def save(network: nn.Module, path: Path, size: tuple[int, int], opset: int = 11) -> Path:
    """Export with the TorchScript exporter, as the repositories do; opset 11 is theirs."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(2)),),
            str(path),
            opset_version=opset,
            input_names=["images"],
            output_names=["output"],
            dynamo=False,
        )
    return path
