//! What a person looks at: metrics, TensorBoard, reports. What needs TensorBoard or a browser runs in `make test-see`, which gets them.

mod browser;
mod metrics;
mod report;
mod tensorboard;
