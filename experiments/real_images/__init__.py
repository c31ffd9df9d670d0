"""What studies on real images share: who is for what, the streams of images, scores, tables and figures."""
