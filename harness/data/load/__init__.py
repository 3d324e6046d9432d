"""Loading: batches of training images and evaluation images, from memory or from files."""
