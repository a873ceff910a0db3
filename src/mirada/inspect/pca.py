import torch
def patch_pca(patches, foreground=False):
    b, h, w, d = patches.shape
    x = patches.flatten(1, 2); x = x - x.mean(1, keepdim=True)
    u, s, v = torch.linalg.svd(x, full_matrices=False)
    c = x @ v[:, :3].mT
    lo, hi = c.amin(1, keepdim=True), c.amax(1, keepdim=True)
    return ((c - lo) / (hi - lo).clamp(min=1e-9)).view(b, h, w, 3)
