"""SHIFT: find which features a classifier of texts uses, cut those that it should not use."""
