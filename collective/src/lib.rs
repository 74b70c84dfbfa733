//! Ranks, the parameter server, push and pull: f32 ranges only.
