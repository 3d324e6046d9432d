"""Data sets in COCO's format (Lin et al. 2014, arXiv:1405.0312): images with objects in boxes."""
