//! Floats on cache lines of their own: a vector that lies in two lines takes twice as long to load and more to store.

use std::ops::{Deref, DerefMut, Range};

/// Floats in a line of 64 bytes.
const LINE: usize = 16;

/// A fixed number of floats, of which the first begins a cache line.
#[derive(Debug)]
pub struct Aligned {
    /// With room for a line more.
    floats: Vec<f32>,
    range: Range<usize>,
}

impl Aligned {
    /// So many zeros.
    pub fn zeros(len: usize) -> Aligned {
        let floats = vec![0.0; len + LINE];
        let start = floats.as_ptr().align_offset(LINE * size_of::<f32>()).min(LINE);
        Aligned { floats, range: start..start + len }
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.floats[self.range.clone()]
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.floats[self.range.clone()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_begin_a_line() {
        for len in [0, 1, 16, 1000] {
            let aligned = Aligned::zeros(len);
            assert_eq!((aligned.len(), aligned.as_ptr() as usize % 64), (len, 0));
        }
    }
}
