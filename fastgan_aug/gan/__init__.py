"""The conditional FastGAN: torch, numpy and safetensors alone."""
