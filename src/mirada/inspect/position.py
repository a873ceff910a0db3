import torch
from torch.nn import functional as F
def position_similarity(backbone, grid=None):
    t = backbone.position_table(grid or backbone.grid)
    u = F.normalize(t[0].detach(), dim=1)
    h, w = grid or backbone.grid
    return (u @ u.mT).view(h, w, h, w)
