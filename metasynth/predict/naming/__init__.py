"""What the numbers of label maps stand for, and where a BIDS data set keeps them."""
