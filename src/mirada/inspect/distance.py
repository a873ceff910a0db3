import torch
def attention_distance(attention, grid, stride, prefix=1):
    h, w = grid
    y, x = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
    p = torch.stack([y.flatten(), x.flatten()], -1).float() * stride
    d = torch.cdist(p, p)
    a = attention[:, :, prefix:, prefix:]
    a = a / a.sum(-1, keepdim=True)
    return (a * d).sum(-1).mean(-1)
