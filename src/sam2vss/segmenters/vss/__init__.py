"""Video semantic segmentation models in plain PyTorch: SegFormer, CFFM, MRCFA and TV3S on the Mix Transformer.

One file per model. Parameters have the names of the published checkpoints, so that these load without a key map.
"""
