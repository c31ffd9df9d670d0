"""The atlas segmenter: a prior registered to a scan, a mixture of intensities, no training."""
