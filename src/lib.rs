//! Distributed training and inference of dense models on CPU clusters.
