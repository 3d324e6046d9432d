"""Engines: how gradients become optimiser steps, natively or through DeepSpeed."""
