"""Object detectors: torchvision's, with feature maps that can be read by name and losses that are means over images."""
