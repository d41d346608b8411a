"""An ONNX graph run by onnxruntime: for what onnx2pytorch does not convert. No gradients, no inner maps."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, nn

from curator.errors import InputError, one_line


class Session(nn.Module):
    """Runs a graph on the processor, image by image, since a file may be made for a single one.

    Args:
        model: its only input is an image (1, 3, h, w). extra: inner values put out after its own outputs.
    Raises:
        InputError: onnxruntime is not installed, or does not take the file.
    """

    def __init__(self, model: onnx.ModelProto, extra: Sequence[str], path: Path) -> None:
        super().__init__()
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise InputError(
                'onnx: run=onnxruntime needs the package onnxruntime; run `pip install "curator[onnx]"`'
            ) from error
        whole = onnx.ModelProto()
        whole.CopyFrom(model)
        for name in extra:
            whole.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._path = path
        try:
            self._session: Any = onnxruntime.InferenceSession(
                whole.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its own types
            raise InputError(f"onnx: onnxruntime does not take {path} ({one_line(error)[:300]})") from error
        self._name = self._session.get_inputs()[0].name

    def forward(self, batch: Tensor) -> list[Tensor]:
        """Outputs of each image of (B, 3, h, w), put together."""
        try:
            found = [self._session.run(None, {self._name: image[None].cpu().numpy()}) for image in batch]
        except Exception as error:  # its own types
            raise InputError(
                f"onnx: onnxruntime does not run {self._path} ({one_line(error)[:300]})"
            ) from error
        return [
            torch.cat([torch.from_numpy(part) for part in parts]).to(batch.device)
            for parts in zip(*found, strict=True)
        ]
