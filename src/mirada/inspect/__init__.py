"""What a model looks at: pure functions of layers, features and models. See docs/looking.md."""

from mirada.inspect.attention import class_attention, every_layer, token_attention
from mirada.inspect.distance import attention_distance, attention_distances
from mirada.inspect.entropy import attention_entropies, attention_entropy
from mirada.inspect.filters import filter_components, patch_filters
from mirada.inspect.grad_cam import grad_cam
from mirada.inspect.pca import patch_colours, patch_pca
from mirada.inspect.position import position_similarity
from mirada.inspect.receptive_field import receptive_field
from mirada.inspect.relevance import relevance
from mirada.inspect.rollout import Rollout, attention_map, rollout
from mirada.inspect.similarity import cka, layer_similarity
from mirada.inspect.words import word_gradients, word_map

__all__ = [
    "Rollout", "attention_distance", "attention_distances", "attention_entropies", "attention_entropy", "attention_map",
    "cka", "class_attention", "every_layer", "filter_components", "grad_cam", "layer_similarity", "patch_colours",
    "patch_filters", "patch_pca", "position_similarity", "receptive_field", "relevance", "rollout", "token_attention",
    "word_gradients", "word_map",
]  # fmt: skip
