def filter_components(backbone, count=28):
    import torch
    w = backbone.stem.weight.detach()
    flat = w.flatten(1)
    _, _, v = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    return v[:count].view(-1, *w.shape[1:])
