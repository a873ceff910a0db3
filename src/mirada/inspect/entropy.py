import torch
def attention_entropy(attention):
    return -(attention * attention.clamp(min=1e-20).log()).sum(-1).mean(-1)
