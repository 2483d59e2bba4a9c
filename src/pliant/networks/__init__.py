"""Networks: plain and elastic blocks, supernets, and their ONNX form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pliant.lazy import lazy_names

if TYPE_CHECKING:
    from pliant.networks.elastic import ElasticBatchNorm2d as ElasticBatchNorm2d
    from pliant.networks.elastic import ElasticConv2d as ElasticConv2d
    from pliant.networks.elastic import ElasticLayerNorm as ElasticLayerNorm
    from pliant.networks.elastic import ElasticLinear as ElasticLinear
    from pliant.networks.elastic_blocks import ElasticBlock as ElasticBlock
    from pliant.networks.elastic_blocks import register_block as register_block
    from pliant.networks.initialization import initialise as initialise
    from pliant.networks.initialization import patch_pca_stem as patch_pca_stem
    from pliant.networks.onnx import network_model as network_model
    from pliant.networks.plain import BlockModule as BlockModule
    from pliant.networks.plain import Network as Network
    from pliant.networks.supernet import Supernet as Supernet
    from pliant.networks.supernet import build as build
    from pliant.networks.supernet import describe as describe
    from pliant.networks.trace import module_workload as module_workload
else:
    __getattr__, __dir__, __all__ = lazy_names(
        __name__,
        {
            "elastic": [
                "ElasticBatchNorm2d",
                "ElasticConv2d",
                "ElasticLayerNorm",
                "ElasticLinear",
            ],
            "elastic_blocks": ["ElasticBlock", "register_block"],
            "initialization": ["initialise", "patch_pca_stem"],
            "onnx": ["network_model"],
            "plain": ["BlockModule", "Network"],
            "supernet": ["Supernet", "build", "describe"],
            "trace": ["module_workload"],
        },
    )
