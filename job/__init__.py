"""Fine-tune an ImageNet-pretrained image classifier in two stages, as one batch job."""

__version__ = "0.1.0"
