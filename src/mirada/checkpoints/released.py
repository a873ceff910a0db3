"""Published weights that people look for: what `mirada models` can say of them without asking anybody.

Sizes are as `mirada.catalogue.measure` counts them. Licences are those that the authors gave the weights; the pages of
the hub, which others wrote, do not always say the same (facebook/vit-mae-base's is one), and "unknown" is what is not
certain. Gated weights are had after accepting their licence on their page.
"""

from typing import NamedTuple

__all__ = ["RELEASED", "Released"]


class Released(NamedTuple):
    """One row.

    Attributes:
        architecture: of the backbone, as `mirada.backbones.build` takes it.
        parameters: of all that an image meets: backbone, projection, head.
        gflops: multiply-adds for one image, in billions.
        size: side of the images, in pixels.
        dim: numbers in an image feature.
        licence: as the hub spells licences.
        head: outputs of the classifier; None without one.
        text_parameters: of the text tower; None without one.
    """

    architecture: str
    parameters: int
    gflops: float
    size: int
    dim: int
    licence: str
    head: int | None = None
    text_parameters: int | None = None
    gated: bool = False


RELEASED: dict[str, Released] = {
    # Images and words in one space.
    "openai:ViT-B/32": Released(
        "vit-b/32(image_size=224, pre_norm=True, activation='quickgelu', epsilon=1e-05)",
        87_849_216, 4.409, 224, 512, "mit", text_parameters=63_428_097),
    "openai:ViT-B/16": Released(
        "vit-b/16(image_size=224, pre_norm=True, activation='quickgelu', epsilon=1e-05)",
        86_192_640, 17.563, 224, 512, "mit", text_parameters=63_428_097),
    "openai:ViT-L/14": Released(
        "vit-l/14(image_size=224, pre_norm=True, activation='quickgelu', epsilon=1e-05)",
        303_966_208, 81.013, 224, 768, "mit", text_parameters=123_650_305),
    "openai:ViT-L/14@336px": Released(
        "vit-l/14(image_size=336, pre_norm=True, activation='quickgelu', epsilon=1e-05)",
        304_293_888, 190.96, 336, 768, "mit", text_parameters=123_650_305),
    "open_clip:ViT-B-32/laion2b_s34b_b79k": Released(
        "vit-b/32(image_size=224, pre_norm=True, activation='gelu', epsilon=1e-05)",
        87_849_216, 4.409, 224, 512, "mit", text_parameters=63_428_097),
    "open_clip:ViT-B-16/datacomp_xl_s13b_b90k": Released(
        "vit-b/16(image_size=224, pre_norm=True, activation='gelu', epsilon=1e-05)",
        86_192_640, 17.563, 224, 512, "mit", text_parameters=63_428_097),
    "open_clip:ViT-L-14/laion2b_s32b_b82k": Released(
        "vit-l/14(image_size=224, pre_norm=True, activation='gelu', epsilon=1e-05)",
        303_966_208, 81.013, 224, 768, "mit", text_parameters=123_650_305),
    "open_clip:ViT-L-14/datacomp_xl_s13b_b90k": Released(
        "vit-l/14(image_size=224, pre_norm=True, activation='gelu', epsilon=1e-05)",
        303_966_208, 81.013, 224, 768, "mit", text_parameters=123_650_305),
    "open_clip:ViT-H-14/laion2b_s32b_b79k": Released(
        "vit-h/14(image_size=224, pre_norm=True, activation='gelu', epsilon=1e-05)",
        632_076_800, 167.295, 224, 1024, "mit", text_parameters=354_032_641),
    "open_clip:ViT-bigG-14/laion2b_s39b_b160k": Released(
        "vit-b/14(dim=1664, depth=48, num_heads=16, mlp_ratio=4.923076923076923, image_size=224, "
        "pre_norm=True, activation='gelu', epsilon=1e-05)",
        1_844_907_264, 483.748, 224, 1280, "mit", text_parameters=694_659_841),
    "open_clip:ViT-B-32/metaclip_400m": Released(
        "vit-b/32(image_size=224, pre_norm=True, activation='quickgelu', epsilon=1e-05)",
        87_849_216, 4.409, 224, 512, "cc-by-nc-4.0", text_parameters=63_428_097),
    "open_clip:ViT-H-14-378/dfn5b": Released(
        "vit-h/14(image_size=378, pre_norm=True, activation='quickgelu', epsilon=1e-05)",
        632_682_240, 503.481, 378, 1024, "apple-amlr", text_parameters=354_032_641),
    "open_clip:ViT-B-16-SigLIP/webli": Released(
        "vit-b/16(image_size=224, pooling='attention')",
        92_884_224, 17.708, 224, 768, "apache-2.0", text_parameters=110_271_746),
    "open_clip:ViT-SO400M-14-SigLIP-384/webli": Released(
        "vit-so400m/14(image_size=384, pooling='attention')",
        428_225_600, 335.173, 384, 1152, "apache-2.0", text_parameters=449_734_898),
    "open_clip:ViT-B-16-SigLIP2/webli": Released(
        "vit-b/16(image_size=224, pooling='attention')",
        92_884_224, 17.708, 224, 768, "apache-2.0", text_parameters=282_303_746),
    "open_clip:ViT-SO400M-16-SigLIP2-384/webli": Released(
        "vit-so400m/16(image_size=384, pooling='attention', activation='gelu_tanh')",
        428_256_704, 259.468, 384, 1152, "apache-2.0", text_parameters=707_782_898),
    "hf:openai/clip-vit-base-patch32": Released(
        "vit-b/32(image_size=224, activation='quickgelu', epsilon=1e-05, pre_norm=True, resample='plain')",
        87_849_216, 4.409, 224, 512, "mit", text_parameters=63_428_097),
    "hf:openai/clip-vit-large-patch14": Released(
        "vit-l/14(image_size=224, activation='quickgelu', epsilon=1e-05, pre_norm=True, resample='plain')",
        303_966_208, 81.013, 224, 768, "mit", text_parameters=123_650_305),
    "hf:google/siglip-base-patch16-224": Released(
        "vit-b/16(image_size=224, activation='gelu_tanh', epsilon=1e-06, pooling='attention', resample='plain')",
        92_884_224, 17.708, 224, 768, "apache-2.0", text_parameters=110_271_746),
    "hf:google/siglip-so400m-patch14-384": Released(
        "vit-so400m/14(image_size=384, activation='gelu_tanh', epsilon=1e-06, pooling='attention', resample='plain')",
        428_225_600, 335.173, 384, 1152, "apache-2.0", text_parameters=449_734_898),
    "hf:google/siglip2-base-patch16-224": Released(
        "vit-b/16(image_size=224, activation='gelu_tanh', epsilon=1e-06, pooling='attention', resample='plain')",
        92_884_224, 17.708, 224, 768, "apache-2.0", text_parameters=282_303_746),
    "hf:google/siglip2-so400m-patch14-384": Released(
        "vit-so400m/14(image_size=384, activation='gelu_tanh', epsilon=1e-06, pooling='attention', resample='plain')",
        428_225_600, 335.173, 384, 1152, "apache-2.0", text_parameters=707_782_898),
    # Images alone.
    "dino:dino_vits16": Released(
        "vit-s/16(image_size=224, epsilon=1e-12, resample='plain')", 21_665_664, 4.598, 224, 384, "apache-2.0"),
    "dino:dino_vitb16": Released(
        "vit-b/16(image_size=224, epsilon=1e-12, resample='plain')", 85_798_656, 17.563, 224, 768, "apache-2.0"),
    "dino:dinov2_vits14": Released(
        "vit-s/14(image_size=518, epsilon=1e-06, resample='plain', layer_scale=1e-05)",
        22_056_192, 6.124, 224, 384, "apache-2.0"),
    "dino:dinov2_vitb14": Released(
        "vit-b/14(image_size=518, epsilon=1e-06, resample='plain', layer_scale=1e-05)",
        86_579_712, 23.161, 224, 768, "apache-2.0"),
    "dino:dinov2_vitl14": Released(
        "vit-l/14(image_size=518, epsilon=1e-06, resample='plain', layer_scale=1e-05)",
        304_367_616, 81.012, 224, 1024, "apache-2.0"),
    "dino:dinov2_vitg14": Released(
        "vit-b/14(dim=1536, depth=40, num_heads=24, mlp_ratio=2.6666666666666665, image_size=518, "
        "epsilon=1e-06, resample='plain', activation='swiglu', layer_scale=1e-05)",
        1_136_479_232, 299.39, 224, 1536, "apache-2.0"),
    "dino:dinov2_vits14_reg": Released(
        "vit-s/14(image_size=518, epsilon=1e-06, resample='antialias', layer_scale=1e-05, registers=4)",
        22_057_728, 6.228, 224, 384, "apache-2.0"),
    "dino:dinov2_vitb14_reg": Released(
        "vit-b/14(image_size=518, epsilon=1e-06, resample='antialias', layer_scale=1e-05, registers=4)",
        86_582_784, 23.539, 224, 768, "apache-2.0"),
    "dino:dinov2_vitl14_reg": Released(
        "vit-l/14(image_size=518, epsilon=1e-06, resample='antialias', layer_scale=1e-05, registers=4)",
        304_371_712, 82.322, 224, 1024, "apache-2.0"),
    "dino:dinov3_vits16": Released(
        "vit-s/16(image_size=224, registers=4, positions='rotary', layer_scale=1e-05, epsilon=1e-05)",
        21_600_768, 4.698, 224, 384, "dinov3-license", gated=True),
    "dino:dinov3_vitb16": Released(
        "vit-b/16(image_size=224, registers=4, positions='rotary', layer_scale=1e-05, epsilon=1e-05)",
        85_668_864, 17.932, 224, 768, "dinov3-license", gated=True),
    "dino:dinov3_vitl16": Released(
        "vit-l/16(image_size=224, registers=4, positions='rotary', layer_scale=1e-05, epsilon=1e-05)",
        303_153_152, 62.84, 224, 1024, "dinov3-license", gated=True),
    "dino:dinov3_vith16plus": Released(
        "vit-b/16(dim=1280, depth=32, num_heads=20, image_size=224, registers=4, positions='rotary', "
        "layer_scale=1e-05, epsilon=1e-05, activation='swiglu')",
        840_632_320, 172.113, 224, 1280, "dinov3-license", gated=True),
    "dino:dinov3_vit7b16": Released(
        "vit-b/16(dim=4096, depth=40, num_heads=32, mlp_ratio=2.0, image_size=224, registers=4, "
        "positions='rotary', layer_scale=1e-05, epsilon=1e-05, activation='swiglu', qkv_bias=False)",
        6_716_030_976, 1362.743, 224, 4096, "dinov3-license", gated=True),
    "mae:mae_vit_base_patch16": Released(
        "vit-b/16(image_size=224, epsilon=1e-12, resample='plain')", 85_798_656, 17.563, 224, 768, "cc-by-nc-4.0"),
    "mae:mae_vit_large_patch16": Released(
        "vit-l/16(image_size=224, epsilon=1e-12, resample='plain')", 303_301_632, 61.554, 224, 1024, "cc-by-nc-4.0"),
    "mae:mae_vit_huge_patch14": Released(
        "vit-h/14(image_size=224, epsilon=1e-12, resample='plain')", 630_764_800, 167.294, 224, 1280, "cc-by-nc-4.0"),
    "vissl:regnet-y-320-seer": Released("regnety-32gf", 141_333_770, 94.823, 384, 3712, "seer-license"),
    "vissl:regnet-y-1280-seer": Released("regnety-128gf", 637_419_894, 374.563, 384, 7392, "seer-license"),
    "vissl:regnet-y-10b-seer": Released("regnety-10b", 9_323_934_872, 5473.405, 384, 28280, "seer-license"),
    "timm:vit_small_patch14_dinov2.lvd142m": Released(
        "vit-s/14(layer_scale=1e-05, image_size=518)", 22_056_192, 46.697, 518, 384, "apache-2.0"),
    "timm:vit_small_patch16_dinov3.lvd1689m": Released(
        "vit-s/16(layer_scale=1e-05, registers=5, positions='rotary', epsilon=1e-05, qkv_bias=False, "
        "pooling='average', image_size=256)",
        21_586_944, 6.245, 256, 384, "dinov3-license"),
    "timm:vit_base_patch16_dinov3.lvd1689m": Released(
        "vit-b/16(layer_scale=1e-05, registers=5, positions='rotary', epsilon=1e-05, qkv_bias=False, "
        "pooling='average', image_size=256)",
        85_641_216, 23.575, 256, 768, "dinov3-license"),
    "timm:vit_base_patch16_siglip_224.v2_webli": Released(
        "vit-b/16(pooling='attention', image_size=224)", 92_884_224, 17.708, 224, 768, "apache-2.0"),
    "hf:google/vit-base-patch16-224-in21k": Released(
        "vit-b/16(image_size=224, epsilon=1e-12, resample='plain')", 86_389_248, 17.564, 224, 768, "apache-2.0"),
    # Images and labels.
    "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k": Released(
        "vit-ti/16(image_size=224)", 5_717_416, 1.254, 224, 192, "apache-2.0", head=1000),
    "timm:vit_small_patch16_224.augreg_in21k_ft_in1k": Released(
        "vit-s/16(image_size=224)", 22_050_664, 4.599, 224, 384, "apache-2.0", head=1000),
    "timm:vit_base_patch16_224.augreg2_in21k_ft_in1k": Released(
        "vit-b/16(image_size=224)", 86_567_656, 17.564, 224, 768, "apache-2.0", head=1000),
    "timm:vit_large_patch16_224.augreg_in21k_ft_in1k": Released(
        "vit-l/16(image_size=224)", 304_326_632, 61.555, 224, 1024, "apache-2.0", head=1000),
    "timm:deit3_small_patch16_224.fb_in22k_ft_in1k": Released(
        "vit-s/16(layer_scale=1e-06, prefix_positions=0, image_size=224)",
        22_059_496, 4.599, 224, 384, "apache-2.0", head=1000),
    "timm:deit3_base_patch16_224.fb_in22k_ft_in1k": Released(
        "vit-b/16(layer_scale=1e-06, prefix_positions=0, image_size=224)",
        86_585_320, 17.564, 224, 768, "apache-2.0", head=1000),
    "timm:coatnet_nano_rw_224.sw_in1k": Released(
        "coatnet-0(widths=(64, 64, 128, 256, 512), depths=(3, 4, 6, 3), variant='nano_rw', image_size=224)",
        15_141_244, 2.383, 224, 512, "apache-2.0", head=1000),
    "timm:coatnet_0_rw_224.sw_in1k": Released(
        "coatnet-0(widths=(64, 96, 192, 384, 768), depths=(2, 3, 7, 2), variant='0_rw', image_size=224)",
        27_435_562, 4.406, 224, 768, "apache-2.0", head=1000),
    "timm:resnet18.a1_in1k": Released("resnet-18", 11_689_512, 1.814, 224, 512, "apache-2.0", head=1000),
    "timm:resnet50.a1_in1k": Released("resnet-50", 25_557_032, 4.089, 224, 2048, "apache-2.0", head=1000),
    "hf:google/vit-base-patch16-224": Released(
        "vit-b/16(image_size=224, epsilon=1e-12, resample='plain')",
        86_567_656, 17.564, 224, 768, "apache-2.0", head=1000),
    "hf:facebook/deit-base-distilled-patch16-224": Released(
        "vit-b/16(image_size=224, epsilon=1e-12, resample='plain', registers=1, prefix_positions=2)",
        87_337_192, 17.657, 224, 768, "apache-2.0", head=1000),
    "hf:microsoft/resnet-50": Released("resnet-50", 25_557_032, 4.089, 224, 2048, "apache-2.0", head=1000),
    "torchvision:resnet18": Released("resnet-18", 11_689_512, 1.814, 224, 512, "bsd-3-clause", head=1000),
    "torchvision:resnet50": Released("resnet-50", 25_557_032, 4.089, 224, 2048, "bsd-3-clause", head=1000),
    "torchvision:regnet_y_3_2gf": Released("regnety-3.2gf", 19_436_338, 3.176, 224, 1512, "bsd-3-clause", head=1000),
    "torchvision:regnet_y_16gf/IMAGENET1K_SWAG_E2E_V1": Released(
        "regnety-16gf", 83_590_140, 46.735, 384, 3024, "cc-by-nc-4.0", head=1000),
    "vissl:regnet-y-2560-seer-in1k": Released(
        "regnety-256gf", 1_282_601_138, 747.236, 384, 10444, "seer-license", head=1000),
}  # fmt: skip
